// --- values of charts: on hover, touch and arrow keys; series that the legend hides; numbers as tables ---

const side = () => (document.documentElement.dataset.zone === "utc" && data.charts.traffic?.zones["in-utc"] ? "in-utc" : "in-local");
const tip = document.getElementById("tip");
const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const hidden = new Map(Object.keys(data.charts).map((name) => [name, new Set()]));

const chartOf = (plot) => data.charts[plot.parentElement.dataset.chart];
const beginsOf = (plot) => chartOf(plot).zones[side()][0]; // of each period

function plotOf(svg) {
  const [x, y, width, height, top] = svg.dataset.plot.split(" ").map(Number);
  return { x, y, width, height, top, scale: svg.viewBox.baseVal.width / svg.getBoundingClientRect().width };
}

// Where each period begins on the axis, and the last one ends, which is drawn as long as the one before.
function placesOf(begins, width) {
  const length = begins.length > 1 ? begins.at(-1) - begins.at(-2) : 1;
  const all = begins.at(-1) + length - begins[0];
  return [...begins, begins.at(-1) + length].map((begin) => ((begin - begins[0]) / all) * width);
}

function showTip(text, x, y) {
  tip.textContent = text;
  tip.classList.add("shown");
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 18 + box.height < innerHeight ? y + 18 : Math.max(4, y - box.height - 12)}px`;
}

function markPlace(svg, values) {
  let mark = svg.querySelector("rect.at");
  if (!mark) {
    mark = drawn("rect", { class: "at" });
    svg.append(mark);
  }
  for (const [key, value] of Object.entries(values)) mark.setAttribute(key, value);
}

// A note if the page has only a part of a period.
function partOf(begins, at) {
  const length = begins.length > 1 ? begins.at(-1) - begins.at(-2) : 0;
  if (at === begins.length - 1 && begins[at] + length > data.until) return " (not all of it)";
  return begins[at] < data.since ? " (not all of it)" : "";
}

function showValue(plot, place, x, y) {
  const chart = chartOf(plot);
  const [begins, counts] = chart.zones[side()];
  const at = Math.max(0, Math.min(begins.length - 1, place));
  const svg = plot.querySelector("svg");
  const { x: left, y: top, width, height } = plotOf(svg);
  const places = placesOf(begins, width);
  markPlace(svg, { x: left + places[at], y: top, width: Math.max(1, places[at + 1] - places[at]), height });
  const shown = chart.names.map((series, number) => [series, counts[number][at]]).filter(([, count]) => count);
  const words = shown.map(([series, count]) => (chart.unit === "users" ? number.format(count) : `${series}: ${number.format(count)}`));
  const moment = minutesOfZone().format(new Date(begins[at] * 1000));
  const sum = shown.reduce((total, [, count]) => total + count, 0);
  const total = shown.length > 1 ? `\ntotal: ${number.format(sum)}` : "";
  showTip(`${moment}${partOf(begins, at)}  ${words.join("\n") || "none"}${total}`, x, y);
  plot.dataset.place = at;
}

function hideValue() {
  tip.classList.remove("shown");
  tip.textContent = "";
  for (const mark of document.querySelectorAll("rect.at")) mark.remove();
}

function placeUnder(plot, clientX) {
  const svg = plot.querySelector("svg");
  const { x, width, scale } = plotOf(svg);
  const begins = beginsOf(plot);
  const at = (clientX - svg.getBoundingClientRect().left) * scale - x;
  return placesOf(begins, width).findLastIndex((begin) => begin <= at);
}

function showWithKeys(plot, place) {
  const svg = plot.querySelector("svg");
  const { x, width, scale } = plotOf(svg);
  const begins = beginsOf(plot);
  const at = Math.max(0, Math.min(begins.length - 1, place));
  const box = svg.getBoundingClientRect();
  showValue(plot, at, box.left + (x + placesOf(begins, width)[at]) / scale, box.top + 10);
}

// Of a week its Monday, which in another zone may be Sunday evening: so look at its middle.
function mondayOf(begin) {
  const middle = new Date(dayOf(begin + 3.5 * 86400));
  middle.setUTCDate(middle.getUTCDate() - ((middle.getUTCDay() + 6) % 7));
  return middle.toISOString().slice(0, 10);
}

function openDay(plot) {
  const begin = beginsOf(plot)[Number(plot.dataset.place)];
  location.hash = data.byWeek ? `week=${mondayOf(begin)}` : `day=${dayOf(begin)}`;
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
      if (!area) return; // this chart reuses the areas of the other zone's
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
  let tapped; // with touch, the first tap shows the value, and a second one opens the day
  plot.addEventListener("pointermove", over);
  plot.addEventListener("pointerdown", over);
  plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hideValue());
  plot.addEventListener("blur", () => {
    tapped = undefined;
    hideValue();
  });
  plot.addEventListener("click", (event) => {
    const isFirst = tapped !== plot.dataset.place;
    tapped = plot.dataset.place;
    if (event.pointerType !== "touch" || !isFirst) openDay(plot);
  });
  plot.addEventListener("keydown", (event) => {
    const last = beginsOf(plot).length - 1;
    const now = Number(plot.dataset.place ?? last + 1);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      showWithKeys(plot, next);
    } else if (event.key === "Escape") hideValue();
    else if (event.key === "Enter" && plot.dataset.place) openDay(plot);
  });
}

// --- the map of the week ---

function showHour(plot, day, hour, at) {
  const svg = plot.querySelector("svg");
  const { x, y, width, height, scale } = plotOf(svg);
  const [left, top] = [x + (hour * width) / 24, y + (day * height) / 7];
  markPlace(svg, { x: left, y: top, width: width / 24, height: height / 7 });
  const box = svg.getBoundingClientRect();
  const [tipX, tipY] = at ?? [box.left + left / scale, box.top + (top + height / 7) / scale];
  const rows = data.weeks[side()][day][hour];
  showTip(`${WEEKDAYS[day]} ${String(hour).padStart(2, "0")}:00  ${number.format(rows)} rows on average`, tipX, tipY);
  plot.dataset.place = day * 24 + hour;
}

function hourUnder(plot, event) {
  const svg = plot.querySelector("svg");
  const { x, y, width, height, scale } = plotOf(svg);
  const box = svg.getBoundingClientRect();
  const within = (part, count) => Math.max(0, Math.min(count - 1, Math.floor(part * count)));
  const day = within(((event.clientY - box.top) * scale - y) / height, 7);
  return [day, within(((event.clientX - box.left) * scale - x) / width, 24)];
}

for (const plot of document.querySelectorAll("figure.week .plot")) {
  const over = (event) => showHour(plot, ...hourUnder(plot, event), [event.clientX, event.clientY]);
  plot.addEventListener("pointermove", over);
  plot.addEventListener("pointerdown", over);
  plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hideValue());
  plot.addEventListener("blur", hideValue);
  plot.addEventListener("keydown", (event) => {
    const place = Number(plot.dataset.place ?? -1);
    const [day, hour] = [Math.floor(place / 24), ((place % 24) + 24) % 24];
    const next = place < 0 ? [0, 0] : {
      ArrowLeft: [day, hour - 1], ArrowRight: [day, hour + 1], ArrowUp: [day - 1, hour], ArrowDown: [day + 1, hour],
      Home: [day, 0], End: [day, 23],
    }[event.key];
    if (event.key === "Escape") hideValue();
    else if (next && /^(Arrow|Home|End)/.test(event.key)) {
      event.preventDefault();
      showHour(plot, Math.max(0, Math.min(6, next[0])), Math.max(0, Math.min(23, next[1])));
    }
  });
}

// --- legends ---

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
    row.append(head, ...of.map((count) => countCell(count)));
  }
  writeTimes(table);
  return scrolling(table, chart.title);
}

for (const details of document.querySelectorAll("details.numbers")) {
  details.addEventListener("toggle", () => {
    details.querySelectorAll(".scroll, .tools").forEach((old) => old.remove());
    if (!details.open) return;
    const numbers = numbersOf(details.dataset.chart);
    details.append(numbers, tools(numbers.querySelector("table"), data.charts[details.dataset.chart].title));
  });
}

// On a phone a chart is wider than the screen: scroll to its newest part.
for (const plot of document.querySelectorAll(".chart .plot")) plot.scrollLeft = plot.scrollWidth;
