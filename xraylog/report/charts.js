// --- values of charts: on hover, touch and arrow keys; series that the legend hides; numbers as tables ---

const side = () => (document.documentElement.dataset.zone === "utc" && data.charts.traffic?.zones["in-utc"] ? "in-utc" : "in-local");
const tip = document.getElementById("tip");
const hidden = new Map(Object.keys(data.charts).map((name) => [name, new Set()]));

function plotOf(svg) {
  const [x, y, width, height, top] = svg.dataset.plot.split(" ").map(Number);
  return { x, y, width, height, top, scale: svg.viewBox.baseVal.width / svg.getBoundingClientRect().width };
}

// Pieces are as long as the others, also the last one, which is drawn so.
function placesOf(begins, width) {
  const length = begins.length > 1 ? begins.at(-1) - begins.at(-2) : 1;
  const all = begins.at(-1) + length - begins[0];
  return [...begins, begins.at(-1) + length].map((begin) => ((begin - begins[0]) / all) * width);
}

function showValue(plot, place, x, y) {
  const name = plot.parentElement.dataset.chart;
  const chart = data.charts[name];
  const [begins, counts] = chart.zones[side()];
  const at = Math.max(0, Math.min(begins.length - 1, place));
  const svg = plot.querySelector("svg");
  const { x: left, y: top, width, height } = plotOf(svg);
  const places = placesOf(begins, width);
  let mark = svg.querySelector("rect.at");
  if (!mark) {
    mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    mark.setAttribute("class", "at");
    svg.append(mark);
  }
  const values = { x: left + places[at], y: top, width: Math.max(1, places[at + 1] - places[at]), height };
  for (const [key, value] of Object.entries(values)) mark.setAttribute(key, value);
  const shown = chart.names.map((series, number) => [series, counts[number][at]]).filter(([, count]) => count);
  const words = shown.map(([series, count]) => (chart.unit === "users" ? number.format(count) : `${series}: ${number.format(count)}`));
  const moment = formatter({ dateStyle: "short", timeStyle: "short", weekday: undefined }).format(new Date(begins[at] * 1000));
  const sum = shown.reduce((total, [, count]) => total + count, 0);
  tip.textContent = `${moment}  ${words.join("\n") || "none"}${shown.length > 1 ? `\ntotal: ${number.format(sum)}` : ""}`;
  tip.classList.add("shown");
  plot.dataset.place = at;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 18 + box.height < innerHeight ? y + 18 : Math.max(4, y - box.height - 12)}px`;
}

function hideValue() {
  tip.classList.remove("shown");
  tip.textContent = "";
  for (const mark of document.querySelectorAll("rect.at")) mark.remove();
}

function placeUnder(plot, clientX) {
  const svg = plot.querySelector("svg");
  const { x, width, scale } = plotOf(svg);
  const [begins] = data.charts[plot.parentElement.dataset.chart].zones[side()];
  const at = (clientX - svg.getBoundingClientRect().left) * scale - x;
  return placesOf(begins, width).findLastIndex((begin) => begin <= at);
}

function showWithKeys(plot, place) {
  const svg = plot.querySelector("svg");
  const { x, width, scale } = plotOf(svg);
  const [begins] = data.charts[plot.parentElement.dataset.chart].zones[side()];
  const at = Math.max(0, Math.min(begins.length - 1, place));
  const box = svg.getBoundingClientRect();
  showValue(plot, at, box.left + (x + placesOf(begins, width)[at]) / scale, box.top + 10);
}

function dayOf(plot) {
  const [begins] = data.charts[plot.parentElement.dataset.chart].zones[side()];
  const day = new Intl.DateTimeFormat("sv-SE", { timeZone: isKnown(data.zone) ? data.zone : "UTC", dateStyle: "short" });
  return day.format(new Date(begins[Number(plot.dataset.place)] * 1000));
}

function restack(name) {
  const chart = data.charts[name];
  for (const plot of document.querySelectorAll(`figure[data-chart=${name}] .plot`)) {
    const svg = plot.querySelector("svg");
    const zoneSide = plot.classList.contains("in-utc") ? "in-utc" : "in-local";
    const [begins, counts] = chart.zones[zoneSide];
    const { width, height, top } = plotOf(svg);
    const places = placesOf(begins, width).map((place) => place.toFixed(1));
    const y = (count) => (height - (count / top) * height).toFixed(1);
    const below = begins.map(() => 0);
    counts.forEach((of, series) => {
      const area = svg.querySelector(`path[fill="var(--series-${series})"]`);
      if (!area) return; // it is the other zone's
      area.style.display = hidden.get(name).has(series) ? "none" : "";
      if (hidden.get(name).has(series)) return;
      const upper = of.map((count, at) => `L${places[at]},${y(below[at] + count)}L${places[at + 1]},${y(below[at] + count)}`);
      const lower = of.map((_, at) => `L${places[at + 1]},${y(below[at])}L${places[at]},${y(below[at])}`).reverse();
      area.setAttribute("d", `M${upper.join("").slice(1)}${lower.join("")}Z`);
      of.forEach((count, at) => (below[at] += count));
    });
  }
}

for (const plot of document.querySelectorAll("figure.chart .plot")) {
  const over = (event) => showValue(plot, placeUnder(plot, event.clientX), event.clientX, event.clientY);
  plot.addEventListener("pointermove", over);
  plot.addEventListener("pointerdown", over);
  plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hideValue());
  plot.addEventListener("blur", hideValue);
  plot.addEventListener("click", (event) => {
    if (event.pointerType !== "touch") location.hash = `day=${dayOf(plot)}`;
  });
  plot.addEventListener("keydown", (event) => {
    const last = data.charts[plot.parentElement.dataset.chart].zones[side()][0].length - 1;
    const now = Number(plot.dataset.place ?? last + 1);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      showWithKeys(plot, next);
    } else if (event.key === "Escape") hideValue();
    else if (event.key === "Enter" && plot.dataset.place) location.hash = `day=${dayOf(plot)}`;
  });
}

for (const figure of document.querySelectorAll("figure.chart")) {
  const name = figure.dataset.chart;
  figure.querySelectorAll(".legend li").forEach((entry, series) => {
    const button = element("button", undefined, "link");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(...entry.childNodes);
    entry.append(button);
    button.addEventListener("click", () => {
      const isShown = button.getAttribute("aria-pressed") === "true";
      hidden.get(name)[isShown ? "add" : "delete"](series);
      button.setAttribute("aria-pressed", String(!isShown));
      restack(name);
    });
  });
}

function numbersOf(name) {
  const chart = data.charts[name];
  const [begins, counts] = chart.zones[side()];
  const rows = begins.map((begin, at) => [begin, counts.map((of) => of[at])]).filter(([, of]) => of.some(Boolean));
  const table = element("table");
  const top = table.createTHead().insertRow();
  for (const text of ["from", ...chart.names]) top.append(Object.assign(element("th", text, text === "from" ? "" : "name"), { scope: "col" }));
  const body = table.createTBody();
  for (const [begin, of] of rows) {
    const row = body.insertRow();
    const head = element("th");
    head.scope = "row";
    head.append(timeOf(begin));
    row.append(head, ...of.map((count) => element("td", number.format(count))));
  }
  writeTimes(table);
  return scrolling(table, chart.title);
}

for (const details of document.querySelectorAll("details.numbers")) {
  details.addEventListener("toggle", () => {
    details.querySelector(".scroll")?.remove();
    if (details.open) details.append(numbersOf(details.dataset.chart));
  });
}

// On a phone a chart is wider than the screen: what is newest comes first.
for (const plot of document.querySelectorAll(".plot")) plot.scrollLeft = plot.scrollWidth;
