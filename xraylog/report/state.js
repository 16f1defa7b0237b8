// --- what the reader typed, sorted, hid, opened and scrolled: the page may load itself anew ---
// Kept in sessionStorage alone, so for as long as the tab is open. What the new page does not have is left out.

const STATE = `xraylog page ${location.pathname}`;
const PARTS = ".scroll, .plot, dialog"; // that scroll
const BELOW_NAV = 60; // pixels

function labelOf(part) {
  if (part.matches(".scroll")) return part.querySelector("table")?.id || part.getAttribute("aria-label"); // captions have counts
  if (part.matches(".plot, details, dialog")) return ""; // there is one, or chart and zone are enough
  return part.dataset.table ?? part.getAttribute("aria-label") ?? part.querySelector("bdi")?.textContent ?? (part.value || part.textContent);
}

// A name under which the new page has the same part, whatever its place there.
function nameOf(part) {
  const chart = part.closest("[data-chart]")?.dataset.chart;
  return [part.localName, part.closest("[id]")?.id, chart, part.closest(".in-utc") ? "utc" : "", labelOf(part)].join("\n");
}

const withName = (name) => [...document.querySelectorAll(name.split("\n")[0])].find((part) => nameOf(part) === name);
const searches = () => [...document.querySelectorAll("input[type=search]")];
const legend = (name) => [...document.querySelectorAll(`figure[data-chart=${CSS.escape(name)}] .legend button`)];

// Columns by their heading, and by how many to the left have the same.
function columnName(table, column) {
  const texts = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  return [texts[column], texts.slice(0, column).filter((text) => text === texts[column]).length];
}

function columnNamed(table, [text, before]) {
  return [...table.tHead.rows[0].cells].filter((cell) => cell.textContent === text)[before];
}

function sectionAtTop() {
  const started = [...document.querySelectorAll("main > section")].filter((section) => section.getBoundingClientRect().top <= BELOW_NAV);
  return started.length && scrollY ? [started.at(-1).id, started.at(-1).getBoundingClientRect().top] : null;
}

function state() {
  const focused = document.activeElement;
  return {
    searches: searches().filter((search) => search.value).map((search) => [search.dataset.table, search.value]),
    sorts: [...sorts].map(([id, by]) => [id, by.map(([column, way]) => [columnName(document.getElementById(id), column), way])]),
    hidden: Object.entries(data.charts).map(([name, chart]) => [name, [...hidden.get(name)].map((series) => chart.names[series])]),
    opened: [...document.querySelectorAll("details[open]")].map(nameOf),
    stays: document.getElementById("refresh")?.checked === false,
    scrolled: [...document.querySelectorAll(PARTS)].filter((part) => part.getClientRects().length).map((part) => [nameOf(part), part.scrollLeft, part.scrollTop]),
    section: sectionAtTop(),
    focused: focused === document.body ? null : [nameOf(focused), focused.selectionStart, focused.selectionEnd],
  };
}

function restore(old) {
  if (old.stays && data.refresh) document.getElementById("refresh").checked = false;
  for (const [id, by] of old.sorts) {
    const table = document.getElementById(id);
    for (const [name, way] of table ? by : []) {
      const header = columnNamed(table, name);
      if (header?.querySelector("button")) sortBy(table, header, way);
    }
  }
  for (const [id, text] of old.searches) {
    const search = searches().find((one) => one.dataset.table === id);
    if (search) {
      search.value = text;
      search.dispatchEvent(new Event("input"));
    }
  }
  for (const [name, series] of old.hidden) {
    for (const one of series) legend(name)[data.charts[name]?.names.indexOf(one)]?.click();
  }
  for (const name of old.opened) withName(name)?.setAttribute("open", "");
}

// Once everything is there that can be scrolled. The browser scrolls a page that is loaded anew itself, before that.
function restorePlace(old) {
  const section = old.section && document.getElementById(old.section[0]);
  if (section) scrollBy({ top: section.getBoundingClientRect().top - old.section[1], behavior: "instant" });
  const focused = old.focused && withName(old.focused[0]);
  focused?.focus({ preventScroll: true });
  if (focused?.type === "search") focused.setSelectionRange(old.focused[1], old.focused[2]);
  for (const [name, left, top] of old.scrolled) withName(name)?.scrollTo({ left, top, behavior: "instant" });
}

function tryTo(act, old) {
  try {
    act(old);
  } catch {
    // another version of the page may have kept it in another form
  }
}

let isRestored = true; // otherwise this page must not replace what it has yet to restore

function restoreAll() {
  const how = performance.getEntriesByType("navigation")[0]?.type ?? "reload";
  if (how !== "reload" && how !== "back_forward") return; // whoever opens the page anew gets it as it is
  let old;
  try {
    old = JSON.parse(kept(STATE));
  } catch {
    return;
  }
  if (!old) return;
  isRestored = false;
  tryTo(restore, old);
  const later = () => requestAnimationFrame(() => setTimeout(() => {
    appendOthers();
    tryTo(restorePlace, old);
    isRestored = true;
  }));
  if (document.readyState === "complete") later();
  else addEventListener("load", later);
}

restoreAll();
const keepState = () => isRestored && keep(STATE, JSON.stringify(state()));
addEventListener("pagehide", keepState);
document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && keepState());
