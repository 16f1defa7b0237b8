"use strict";
// Sorts, searches, changes the zone of times, and shows a user. Strings of the data become text nodes, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const number = new Intl.NumberFormat("en-US");

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// --- times ---

const zone = () => (document.documentElement.dataset.zone === "utc" ? "UTC" : data.zone);

function isKnown(timeZone) {
  try {
    return Boolean(new Intl.DateTimeFormat("sv-SE", { timeZone }));
  } catch {
    return false; // younger than the browser, as Europe/Kyiv, or not one of IANA's, as posix/Europe/Berlin
  }
}

function formatter(options) {
  return new Intl.DateTimeFormat("sv-SE", { timeZone: zone(), ...options }); // Swedish writes 2025-11-17 10:15
}

function writeTimes(within) {
  const minutes = formatter({ dateStyle: "short", timeStyle: "short" });
  for (const time of within.querySelectorAll("time")) time.textContent = minutes.format(new Date(time.dateTime));
}

function timeOf(seconds) {
  const time = element("time");
  time.dateTime = new Date(seconds * 1000).toISOString();
  return time;
}

if (!isKnown(data.zone)) {
  document.documentElement.dataset.zone = "utc";
  document.querySelector("input[name=zone][value=utc]").checked = true;
  const local = document.querySelector("input[name=zone][value=local]");
  local.disabled = true;
  local.parentElement.append(" (not known to this browser)");
}

for (const choice of document.querySelectorAll("input[name=zone]")) {
  choice.addEventListener("change", () => {
    document.documentElement.dataset.zone = choice.value;
    writeTimes(document);
  });
}

// --- users ---

const NAME = 0, ROWS = 1, ADDRESSES = 3, FIRST = 6, LAST = 7, DAYS = 8, FROM = 9, TO = 10;

function drawn(name, points, className) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", name);
  line.setAttribute("points", points);
  if (className) line.setAttribute("class", className);
  return line;
}

function daysLine(days) {
  const most = Math.max(1, ...days);
  const last = Math.max(1, days.length - 1);
  const points = days.map((rows, day) => `${((day * 88) / last + 1).toFixed(0)},${(19 - (rows * 18) / most).toFixed(0)}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "days");
  svg.setAttribute("viewBox", "0 0 90 20");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `rows by day, at most ${number.format(most)}${data.partial ? "; the last day is not over" : ""}`);
  if (points.length === 1) {
    svg.append(drawn("polyline", "1,1 89,1", data.partial && "partial"));
  } else {
    const whole = data.partial ? points.slice(0, -1) : points;
    svg.append(drawn("polyline", whole.join(" ")));
    if (data.partial) svg.append(drawn("polyline", points.slice(-2).join(" "), "partial"));
  }
  return svg;
}

function userRow(user) {
  const row = element("tr");
  const name = element("th", undefined, "name");
  name.scope = "row";
  const button = element("button", user[NAME], "link");
  button.type = "button";
  button.addEventListener("click", () => showUser(user));
  name.append(button);
  row.append(name);
  row.dataset.also = user[FROM].map(([address]) => address).join(" ");
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
  const line = element("td");
  line.append(daysLine(user[DAYS]));
  row.append(line);
  return row;
}

function pairs(title, head, rows) {
  const box = element("div");
  box.append(element("h3", title));
  if (!rows.length) {
    box.append(element("p", "None that stands out.", "quiet"));
    return box;
  }
  const table = element("table");
  const top = table.createTHead().insertRow();
  for (const text of [head, "rows"]) top.append(Object.assign(element("th", text), { scope: "col" }));
  const body = table.createTBody();
  for (const [name, count] of rows) {
    const row = body.insertRow();
    row.append(element("td", name, "name"), element("td", number.format(count)));
  }
  const scroll = element("div", undefined, "scroll");
  scroll.tabIndex = 0; // or the keyboard cannot scroll it
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", title);
  scroll.append(table);
  box.append(scroll);
  return box;
}

function headOfAddresses(user) {
  if (data.masked) return "Most frequent networks";
  const shown = user[FROM].length;
  const all = user[ADDRESSES];
  return shown < all ? `Addresses: the ${shown} most frequent of ${number.format(all)}` : "Addresses";
}

function showUser(user) {
  const dialog = document.getElementById("user");
  const body = dialog.querySelector("div.side");
  const days = data.days.map((day, place) => [day, user[DAYS][place]]).filter(([, rows]) => rows);
  dialog.querySelector("h2").textContent = user[NAME];
  body.replaceChildren(
    pairs(headOfAddresses(user), data.masked ? "network" : "address", user[FROM]),
    pairs("Most frequent destinations", "destination", user[TO].map(([place, rows]) => [data.names[place], rows])),
    pairs("Days", "day", days),
  );
  dialog.showModal();
}

const users = document.querySelector("#users tbody");
if (users) users.append(...data.users.map(userRow));

// --- tables ---

function valueOf(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === "") return null; // there is none: such rows stay after the others
  return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
}

function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  return sign * (one < other ? -1 : one > other ? 1 : 0);
}

function sortBy(table, header) {
  const column = header.cellIndex;
  const firstWay = table.tBodies[0].rows[0]?.cells[column].dataset.value === undefined ? "ascending" : "descending";
  const now = header.getAttribute("aria-sort");
  const way = now === null ? firstWay : now === "ascending" ? "descending" : "ascending";
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
    button.addEventListener("click", () => sortBy(table, header));
    header.replaceChildren(button);
  }
}

const ADDRESS = /^[0-9a-f]*[.:][0-9a-f.:]*$/; // or the beginning of one

function elsewhere(table, wanted) {
  if (table.id !== "users" || data.masked || !ADDRESS.test(wanted)) return "";
  const shown = data.users.reduce((sum, user) => sum + user[FROM].length, 0);
  const all = data.users.reduce((sum, user) => sum + user[ADDRESSES], 0);
  if (shown >= all && data.hasAllUsers) return "";
  return ` This page has the most frequent addresses of each user, ${number.format(shown)} of ${number.format(all)}.`
    + ` All are in the database: SELECT DISTINCT u.email, l.source_ip FROM logs l JOIN users u ON u.id = l.user_id`
    + ` WHERE l."timestamp" >= '${data.days[0]}' AND host(l.source_ip) LIKE '${wanted}%'`;
}

for (const search of document.querySelectorAll("input[type=search]")) {
  const table = document.getElementById(search.dataset.table);
  const found = document.getElementById(search.getAttribute("aria-describedby"));
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !`${row.cells[0].textContent} ${row.dataset.also ?? ""}`.toLowerCase().includes(wanted);
      count += row.hidden ? 0 : 1;
    }
    found.textContent = `${number.format(count)} shown.${elsewhere(table, wanted)}`;
  });
}

writeTimes(document);
