// --- the table of users ---

const AT_ONCE = 100; // rows before the first paint; the others follow it

// A day of which the page has only a part is drawn with dashes, because it cannot be compared with the others.
function daysLine(days) {
  const most = Math.max(1, ...days);
  const last = Math.max(1, days.length - 1);
  const points = days.map((rows, day) => `${((day * 88) / last + 1).toFixed(0)},${(19 - (rows * 18) / most).toFixed(0)}`);
  const parts = `${data.partialFirst ? "; the first day is not whole" : ""}${data.partial ? "; the last day is not over" : ""}`;
  const label = `rows by day, at most ${number.format(most)}${parts}`;
  const svg = drawn("svg", { class: "days", viewBox: "0 0 90 20", role: "img", "aria-label": label });
  svg.ofDays = days;
  const line = (places, isPartial) => svg.append(drawn("polyline", { points: places, class: isPartial ? "partial" : "" }));
  if (points.length === 1) {
    line("1,1 89,1", data.partial || data.partialFirst);
    return svg;
  }
  const whole = points.slice(data.partialFirst ? 1 : 0, data.partial ? -1 : undefined);
  if (whole.length > 1) line(whole.join(" "), false);
  const dashed = [...(data.partialFirst ? [points.slice(0, 2)] : []), ...(data.partial ? [points.slice(-2)] : [])];
  for (const part of new Set(dashed.map((of) => of.join(" ")))) line(part, true);
  return svg;
}

function showDay(event) {
  const line = event.target.closest?.("svg.days");
  if (!line) {
    hideValue();
    return;
  }
  const box = line.getBoundingClientRect();
  const last = line.ofDays.length - 1;
  const day = Math.max(0, Math.min(last, Math.round(((event.clientX - box.left) / box.width) * last)));
  const part = (data.partial && day === last && " (not over)") || (data.partialFirst && !day && " (not all of it)") || "";
  showTip(`${data.days[day]}${part}  ${number.format(line.ofDays[day])} rows`, event.clientX, event.clientY);
}

function userRow(user) {
  const row = element("tr");
  const name = element("th", undefined, "name");
  name.scope = "row";
  name.append(link("user", user[NAME]));
  row.append(name);
  const addresses = user[FROM].map(([address]) => address);
  row.dataset.also = addresses.join(" ");
  row.dataset.networks = [...new Set(addresses.map(networkOf))].join(" ");
  for (let column = ROWS; column < FIRST; column += 1) {
    const cell = element("td", number.format(user[column]));
    cell.dataset.value = user[column];
    row.append(cell);
  }
  for (const column of [FIRST, LAST]) {
    const cell = element("td");
    cell.dataset.value = user[column];
    cell.append(timeOf(user[column]));
    row.append(cell);
  }
  const line = element("td", undefined, "by-day");
  line.append(daysLine(user[DAYS]));
  row.append(line);
  return row;
}

const users = document.querySelector("#users tbody");
let later = users ? data.users.slice(AT_ONCE) : [];

function appendUsers(some) {
  const rows = some.map(userRow);
  for (const row of rows) writeTimes(row);
  users.append(...rows);
}

function appendOthers() {
  const some = later;
  later = [];
  if (some.length) appendUsers(some);
}

if (users) {
  users.addEventListener("pointermove", showDay);
  users.addEventListener("pointerdown", showDay);
  users.addEventListener("pointerleave", hideValue);
  appendUsers(data.users.slice(0, AT_ONCE));
  requestAnimationFrame(() => setTimeout(appendOthers));
  addEventListener("beforeprint", appendOthers);
}

for (const table of document.querySelectorAll("table[data-links]")) {
  for (const row of table.tBodies[0].rows) row.cells[0].replaceChildren(link(table.dataset.links, row.cells[0].textContent));
}

// --- sorting ---

function valueOf(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === "") return null; // no value: such rows are always sorted last
  return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
}

function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  return sign * (one < other ? -1 : one > other ? 1 : 0);
}

const sorts = new Map(); // by id of a table: the columns by which it was sorted, and which way, the last one last

function nextWay(table, header) {
  const now = header.getAttribute("aria-sort");
  if (now !== null) return now === "ascending" ? "descending" : "ascending";
  return table.tBodies[0].rows[0]?.cells[header.cellIndex].dataset.value === undefined ? "ascending" : "descending";
}

function sortBy(table, header, way) {
  appendOthers();
  const column = header.cellIndex;
  sorts.set(table.id, [...(sorts.get(table.id) ?? []).filter(([other]) => other !== column), [column, way]]);
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", way);
  const sign = way === "ascending" ? 1 : -1;
  const keyed = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
  keyed.sort(([one], [other]) => compare(one, other, sign));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sorted")) {
  for (const header of table.tHead.rows[0].cells) {
    if (header.dataset.plain !== undefined) continue;
    const button = element("button", header.textContent);
    button.type = "button";
    button.addEventListener("click", () => sortBy(table, header, nextWay(table, header)));
    header.replaceChildren(button);
  }
}

// --- searching ---

const of = (shown, all) => `${number.format(shown)} of ${number.format(all)}`;

// Say what a search cannot find, because the page does not have all of it, and which command finds it.
const LACKS = {
  users(wanted) {
    const lines = [];
    if (data.users.length < data.totalUsers) {
      lines.push(`This page has the users with the most rows, ${of(data.users.length, data.totalUsers)}: ${ask("user NAME")} shows each of the others.`);
    }
    if (!ADDRESS.test(wanted)) return lines;
    if (data.masked) return wanted.includes("/") ? lines : [...lines, "This page has networks and no addresses."];
    const shown = data.users.reduce((all, user) => all + user[FROM].length, 0);
    const all = data.users.reduce((sum, user) => sum + user[ADDRESSES], 0);
    if (shown >= all && !lines.length) return [];
    return [...lines, `This page has the most frequent addresses of each user, ${of(shown, all)}:`
      + ` ${askClient(wanted)} shows who connects from any address, or network.`];
  },
  sources(wanted) {
    const shown = document.querySelectorAll("#sources tbody tr").length;
    if (shown >= data.totalSources) return [];
    const all = `This page has the sources with the most rows, ${of(shown, data.totalSources)}`;
    return [ADDRESS.test(wanted) && !data.masked
      ? `${all}: ${askClient(wanted, " --only rejected")} shows what was rejected from any address, or network.`
      : `${all}: ${ask("rejected --limit 0")} shows the others.`];
  },
  destinations() {
    const shown = Object.keys(data.destinations).length;
    if (shown >= data.totalDestinations) return [];
    return [`The tables of this page have ${of(shown, data.totalDestinations)} destinations: ${ask("reached NAME")} shows who went to one of the others, also as '*.example.org'.`];
  },
};

function elsewhere(table, wanted) {
  const lacks = LACKS[table.dataset.links === "destination" ? "destinations" : table.id];
  return wanted && lacks ? lacks(wanted).map((line) => ` ${line}`).join("") : "";
}

for (const search of document.querySelectorAll("input[type=search]")) {
  const table = document.getElementById(search.dataset.table);
  const found = document.getElementById(search.getAttribute("aria-describedby"));
  search.addEventListener("input", () => {
    appendOthers();
    const wanted = search.value.trim().toLowerCase();
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const networks = wanted.includes("/") ? row.dataset.networks : ""; // otherwise 203.0.113.0 would find all of its /24
      row.hidden = ![row.cells[0].textContent, row.dataset.also, networks].join(" ").toLowerCase().includes(wanted);
      count += row.hidden ? 0 : 1;
    }
    found.textContent = `${number.format(count)} shown.${elsewhere(table, wanted)}`;
  });
}

// --- copying, and saving as CSV: the visible rows, in their order ---

function cellsOf(table) {
  appendOthers();
  const columns = [...table.tHead.rows[0].cells].filter((cell) => cell.textContent.trim() !== "by day").map((cell) => cell.cellIndex);
  const rows = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((row) => !row.hidden);
  return rows.map((row) => columns.map((column) => {
    const cell = row.cells[column];
    const isNumber = cell.dataset.value && !cell.querySelector("time") && !cell.textContent.includes("%");
    return isNumber ? cell.dataset.value : (cell.dataset.text ?? cell.textContent).trim();
  }));
}

// A spreadsheet executes a cell that begins like a formula, also in full-width characters, and clients choose host names.
// Control characters would end a cell or a line, or control a terminal.
function plain(text) {
  const shown = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, " ");
  return /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(shown) ? `'${shown}` : shown;
}

async function copy(table, status) {
  const text = cellsOf(table).map((row) => row.map(plain).join("\t")).join("\n");
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = "Copied.";
  } catch {
    status.textContent = "This browser does not let the page copy; save it instead.";
  }
}

function save(table, name) {
  const quoted = (text) => `"${plain(text).replaceAll('"', '""')}"`;
  const text = cellsOf(table).map((row) => row.map(quoted).join(",")).join("\r\n");
  const made = element("a");
  made.href = URL.createObjectURL(new Blob([`${text}\r\n`], { type: "text/csv" }));
  made.download = `${name}.csv`;
  made.click();
  setTimeout(() => URL.revokeObjectURL(made.href), 1000);
}

function tools(table, title) {
  const made = element("p", undefined, "tools");
  const status = element("span", undefined, "quiet");
  status.setAttribute("role", "status");
  const name = table.id || title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  for (const [text, act] of [["Copy", () => copy(table, status)], ["Save as CSV", () => save(table, name)]]) {
    const button = element("button", text, "link");
    button.type = "button";
    button.setAttribute("aria-label", `${text}: ${title}`);
    button.addEventListener("click", act);
    made.append(button);
  }
  made.append(status);
  return made;
}

for (const table of document.querySelectorAll("table[id], table.whole")) {
  const title = table.dataset.title || table.caption?.textContent.split(/[.:,]/)[0] || table.closest("[aria-label]").getAttribute("aria-label");
  table.closest(".scroll").after(tools(table, title));
}

writeTimes(document);
showView();
