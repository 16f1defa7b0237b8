// --- the table of users ---

const AT_ONCE = 100; // rows before the first paint; the others follow it

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
    svg.append(drawn("polyline", (data.partial ? points.slice(0, -1) : points).join(" ")));
    if (data.partial) svg.append(drawn("polyline", points.slice(-2).join(" "), "partial"));
  }
  return svg;
}

function userRow(user) {
  const row = element("tr");
  const name = element("th", undefined, "name");
  name.scope = "row";
  name.append(link("user", user[NAME]));
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
  if (cell.dataset.value === "") return null; // there is none: such rows stay after the others
  return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
}

function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  return sign * (one < other ? -1 : one > other ? 1 : 0);
}

function sortBy(table, header) {
  appendOthers();
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

// --- searching ---

const ADDRESS = /^[0-9a-f]*[.:][0-9a-f.:]*$/; // or the beginning of one

function elsewhere(table, wanted) {
  if (table.id !== "users" || data.masked || !ADDRESS.test(wanted)) return "";
  const shown = data.users.reduce((all, user) => all + user[FROM].length, 0);
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
    appendOthers();
    const wanted = search.value.trim().toLowerCase();
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !`${row.cells[0].textContent} ${row.dataset.also ?? ""}`.toLowerCase().includes(wanted);
      count += row.hidden ? 0 : 1;
    }
    found.textContent = `${number.format(count)} shown.${elsewhere(table, wanted)}`;
  });
}

// --- copying, and saving as CSV: the rows that are shown, in their order ---

function cellsOf(table) {
  appendOthers();
  const columns = [...table.tHead.rows[0].cells].filter((cell) => cell.textContent.trim() !== "by day").map((cell) => cell.cellIndex);
  const rows = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((row) => !row.hidden);
  return rows.map((row) => columns.map((column) => {
    const cell = row.cells[column];
    const isNumber = cell.dataset.value && !cell.querySelector("time") && !cell.textContent.includes("%");
    return isNumber ? cell.dataset.value : cell.textContent.trim();
  }));
}

// A spreadsheet runs what begins like a formula, also in full width, and a client chooses host names.
const quoted = (text) => `"${(/^[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
const flat = (text) => (/^[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(text) ? `'${text}` : text).replace(/[\t\r\n]/g, " ");

async function copy(table, status) {
  const text = cellsOf(table).map((row) => row.map(flat).join("\t")).join("\n");
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = "Copied.";
  } catch {
    status.textContent = "This browser does not let the page copy; save it instead.";
  }
}

function save(table) {
  const text = cellsOf(table).map((row) => row.map(quoted).join(",")).join("\r\n");
  const made = element("a");
  made.href = URL.createObjectURL(new Blob([`${text}\r\n`], { type: "text/csv" }));
  made.download = `${table.id}.csv`;
  made.click();
  setTimeout(() => URL.revokeObjectURL(made.href), 1000);
}

for (const table of document.querySelectorAll("table.sorted")) {
  const title = table.caption?.textContent.split(/[.:,]/)[0] || table.closest("[aria-label]").getAttribute("aria-label");
  const tools = element("p", undefined, "tools");
  const status = element("span", undefined, "quiet");
  status.setAttribute("role", "status");
  for (const [text, act] of [["Copy", () => copy(table, status)], ["Save as CSV", () => save(table)]]) {
    const button = element("button", text, "link");
    button.type = "button";
    button.setAttribute("aria-label", `${text}: ${title}`);
    button.addEventListener("click", act);
    tools.append(button);
  }
  tools.append(status);
  table.closest(".scroll").after(tools);
}

writeTimes(document);
showView();
