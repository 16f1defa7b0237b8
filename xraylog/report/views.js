// --- what an address like #user=alice shows: in one dialog, so that Back and bookmarks work ---

const view = document.getElementById("view");
const sum = (counts) => counts.reduce((total, count) => total + count, 0);
const named = (pairs) => pairs.map(([place, rows]) => [data.names[place], rows]);
const byRows = (pairs) => pairs.filter(([, rows]) => rows).sort(([, one], [, other]) => other - one);
const rowsOf = (pairs, name) => pairs.find(([one]) => one === name)?.[1] ?? 0;

function networkOf(address) {
  if (address.includes("/")) return address;
  if (!address.includes(":")) return `${address.split(".").slice(0, 3).join(".")}.0/24`;
  const [head, tail] = address.split("::").map((part) => part.split(":").filter(Boolean));
  const groups = tail ? [...head, ...Array(Math.max(0, 8 - head.length - tail.length)).fill("0"), ...tail] : head;
  const kept = groups.slice(0, 3);
  while (kept.at(-1) === "0") kept.pop();
  return `${kept.join(":")}::/48`;
}

const usersWith = (column, name) => byRows(data.users.map((user) => [user[NAME], rowsOf(column === FROM ? user[FROM] : named(user[column]), name)]));
const shared = (rows, all) => `${number.format(rows)} rows, ${((100 * rows) / (all || 1)).toFixed(1)} %`;

const VIEWS = {
  user(name) {
    const user = data.users.find((one) => one[NAME] === name);
    if (!user) return null;
    const [shown, all] = [user[FROM].length, user[ADDRESSES]];
    const few = shown < all ? `Addresses: the ${shown} most frequent of ${number.format(all)}` : "Addresses";
    const networks = new Map();
    for (const [address, rows] of user[FROM]) networks.set(networkOf(address), (networks.get(networkOf(address)) ?? 0) + rows);
    return {
      facts: `${number.format(user[ROWS])} rows, ${user[TOGETHER]} addresses together, ${number.format(all)} in total`,
      tables: [
        [data.masked ? "Most frequent networks" : few, "address", user[FROM]],
        ["Most frequent destinations", "destination", named(user[TO])],
        ["Days", "day", data.days.map((day, place) => [day, user[DAYS][place]]).filter(([, rows]) => rows)],
        ["Networks of these addresses", "network", byRows([...networks])],
        ["Outbound tags", "tag", named(user[TAGS])],
        ["Ports", "ports", named(user[PORTS])],
      ],
      command: "ask_logs.py user NAME shows all of it",
    };
  },
  destination(name) {
    const known = data.destinations[data.names.indexOf(name)];
    const users = new Map([...usersWith(TO, name), ...(known?.[4] ?? [])]);
    if (!users.size && !known) return null;
    const of = known ? `${number.format(users.size)} of ${number.format(known[2])} users` : `${number.format(users.size)} users whose lists have it`;
    return {
      facts: `${known ? `${number.format(known[0])} rows (${number.format(known[1])} in the period before), ports ${known[3].join(", ")}; ` : ""}${of}`,
      tables: [["Users", "user", byRows([...users])]],
      command: "ask_logs.py reached NAME shows all of them",
    };
  },
  address(name) {
    const users = usersWith(FROM, name);
    return users.length ? { facts: `in ${networkOf(name)}`, tables: [["Users", "user", users], ["Network", "network", [[networkOf(name), sum(users.map(([, rows]) => rows))]]]] } : null;
  },
  network(name) {
    const within = data.users.flatMap((user) => user[FROM].filter(([address]) => networkOf(address) === name).map(([address, rows]) => [user[NAME], address, rows]));
    const add = (place) => within.reduce((all, row) => all.set(row[place], (all.get(row[place]) ?? 0) + row[2]), new Map());
    return within.length ? { facts: "of the addresses on this page", tables: [["Users", "user", byRows([...add(0)])], ["Addresses", "address", byRows([...add(1)])]] } : null;
  },
  day(name) {
    const place = data.days.indexOf(name);
    if (place < 0) return null;
    const users = byRows(data.users.map((user) => [user[NAME], user[DAYS][place]]));
    const day = new Intl.DateTimeFormat("sv-SE", { timeZone: isKnown(data.zone) ? data.zone : "UTC", dateStyle: "short" });
    const [begins, counts] = data.charts.traffic.zones["in-local"];
    const tags = data.charts.traffic.names.map((tag, series) => [tag, sum(counts[series].filter((_, at) => day.format(begins[at] * 1000) === name))]);
    return { facts: `${number.format(users.length)} users`, tables: [["Users", "user", users], ["Outbound tags", "tag", byRows(tags)]] };
  },
  tag(name) {
    const users = usersWith(TAGS, name);
    const goals = named(data.goals[name] ?? []);
    const all = new Map(data.users.map((user) => [user[NAME], user[ROWS]]));
    return users.length || goals.length ? {
      facts: shared(sum(users.map(([, rows]) => rows)), sum([...all.values()])),
      tables: [["Users", "user", users], [goals.length ? "Most frequent destinations" : "Destinations: only those of tags that go nowhere are counted", "destination", goals]],
      command: "ask_logs.py outbound TAG shows all of it",
    } : null;
  },
  ports(name) {
    const users = usersWith(PORTS, name);
    return users.length ? { facts: `${number.format(users.length)} users`, tables: [["Users", "user", users]], command: "ask_logs.py ports PORTS shows single ports" } : null;
  },
  node(name) {
    const series = data.charts.nodes?.names.indexOf(name);
    const gaps = data.gaps.filter(([node]) => node === name).slice(0, 50);
    const [begins, counts] = series >= 0 ? data.charts.nodes.zones[side()] : [[], []];
    const minutes = formatter({ dateStyle: "short", timeStyle: "short" });
    const rows = begins.map((begin, at) => [minutes.format(begin * 1000), counts[series][at]]);
    return {
      facts: "",
      tables: [
        ["Nobody let in, from", "hours", gaps.map(([, since, until]) => [minutes.format(since * 1000), Math.round((until - since) / 360) / 10])],
        ["Rows from", "rows", rows.reverse()],
      ],
    };
  },
};

function pairs(title, kind, rows) {
  const box = element("div");
  box.append(element("h3", title));
  if (!rows.length) {
    box.append(element("p", "None on this page.", "quiet"));
    return box;
  }
  const table = element("table");
  const top = table.createTHead().insertRow();
  for (const text of kind === "hours" ? ["from", "hours"] : kind === "rows" ? ["from", "rows"] : [kind, "rows"]) top.append(Object.assign(element("th", text), { scope: "col" }));
  const body = table.createTBody();
  for (const [name, count] of rows) {
    const cell = element("td", undefined, "name");
    cell.append(kind in VIEWS ? link(kind, name) : name);
    body.insertRow().append(cell, element("td", number.format(count)));
  }
  box.append(scrolling(table, title));
  return box;
}

function showView() {
  const [, kind, text] = /^#(\w+)=(.*)$/s.exec(location.hash) ?? [];
  let name;
  try {
    name = decodeURIComponent(text);
  } catch {
    name = text;
  }
  if (!Object.hasOwn(VIEWS, kind ?? "")) {
    if (view.open) view.close();
    return;
  }
  const found = VIEWS[kind](name) ?? { facts: "This page has nothing of it.", tables: [] };
  const heading = view.querySelector("h2");
  heading.textContent = name;
  heading.dataset.kind = kind;
  document.getElementById("view-facts").textContent = [found.facts, found.command].filter(Boolean).join(". ");
  view.querySelector("div.side").replaceChildren(...found.tables.map((table) => pairs(...table)));
  hideValue();
  if (!view.open) view.showModal();
  view.scrollTop = 0;
}

addEventListener("hashchange", showView);
view.addEventListener("close", () => {
  if (location.hash.includes("=")) history.pushState(null, "", "#");
});
view.addEventListener("click", (event) => event.target === view && view.close()); // beside it
