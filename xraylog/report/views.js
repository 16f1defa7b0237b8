// --- the dialog for an address like #user=alice, so that Back and bookmarks work ---

const view = document.getElementById("view");
const several = (count, one, many) => `${number.format(count)} ${count === 1 ? one : many}`;
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

// --- country and provider of an address, if the page has them ---

const PLACE = 2; // the column with the number of country and provider, in the entry of an address
const KINDS = ["country", "provider"];
let places;

function placeOf(address) {
  places ??= new Map(data.users.flatMap((user) => user[FROM]).filter((of) => of.length > PLACE)
    .map((of) => [of[0], data.places[of[PLACE]].map((name) => (name === null ? undefined : data.names[name]))]));
  return places.get(address) ?? [];
}

// Tables of the countries and providers of these addresses; none if nothing is known about them.
function origins(addresses, kinds = KINDS) {
  return kinds.map((kind) => {
    const counts = new Map();
    for (const [address, rows] of addresses) {
      const name = placeOf(address)[KINDS.indexOf(kind)];
      if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + rows);
    }
    return [kind === "country" ? "Countries" : "Providers", kind, byRows([...counts])];
  }).filter(([, , rows]) => rows.length);
}

// The users with matching addresses on this page, and these addresses.
function within(fits, kinds) {
  const found = data.users.flatMap((user) => user[FROM].filter(([address]) => fits(address)).map(([address, rows]) => [user[NAME], address, rows]));
  const add = (place) => byRows([...found.reduce((all, row) => all.set(row[place], (all.get(row[place]) ?? 0) + row[2]), new Map())]);
  if (!found.length) return null;
  return {
    facts: `of the ${data.masked ? "networks" : "addresses"} on this page`,
    tables: [["Users", "user", add(0)], [data.masked ? "Networks" : "Addresses", "address", add(1)], ...origins(add(1), kinds)],
  };
}

// What the page has of some days, given by their numbers. `hasTags`: whether charts count by these days, or by parts of them.
function ofDays(places, hasTags) {
  const on = (counts) => sum(places.map((place) => counts[place] ?? 0));
  const users = byRows(data.users.map((user) => [user[NAME], on(user[DAYS])]));
  const nodes = byRows(data.nodes.map((node) => [node[NAME], on(node[NODE_DAYS])]));
  const [begins, counts] = data.charts.traffic.zones["in-local"];
  const days = places.map((place) => data.days[place]);
  const isWithin = (begin) => days.includes(dayOf(Math.max(begin, data.since))); // the first week may begin before the page
  const tags = data.charts.traffic.names.map((tag, series) => [tag, sum(counts[series].filter((_, at) => isWithin(begins[at])))]);
  return {
    facts: several(users.length, "user", "users"),
    tables: [["Users", "user", users], ...(hasTags ? [["Outbound tags", "tag", byRows(tags)]] : []), ["Nodes", "node", nodes]],
  };
}

const A_DAY = 864e5; // milliseconds

function daysOfWeek(monday) {
  const begin = Date.parse(monday);
  if (new Date(begin).getUTCDay() !== 1) return [];
  return [...data.days.keys()].filter((place) => Date.parse(data.days[place]) >= begin && Date.parse(data.days[place]) < begin + 7 * A_DAY);
}

// Options for the commands, which by default would be about the last days and all nodes: the time and node of this page.
const utc = (seconds) => new Date(seconds * 1000).toISOString().replace(".000", "");
const times = `--since ${utc(Math.floor(data.since))} --until ${utc(Math.ceil(data.until))}`;
const ask = (question, node = data.oneNode ? " --node NODE" : "") => `ask_logs.py ${question}${node} ${times}`;

const VIEWS = {
  user(name) {
    const user = data.users.find((one) => one[NAME] === name);
    if (!user) return null;
    const [shown, all] = [user[FROM].length, user[ADDRESSES]];
    const few = shown < all ? `Addresses: the ${shown} most frequent of ${number.format(all)}` : "Addresses";
    const networks = new Map();
    for (const [address, rows] of user[FROM]) networks.set(networkOf(address), (networks.get(networkOf(address)) ?? 0) + rows);
    const from = origins(user[FROM]).map(([title, kind, found]) => several(found.length, kind, title.toLowerCase())).join(", ");
    return {
      facts: `${several(user[ROWS], "row", "rows")}, ${several(user[TOGETHER], "address", "addresses")} together, ${number.format(all)} in total${from && `; those on this page are of ${from}`}`,
      tables: [
        [data.masked ? "Most frequent networks" : few, "address", user[FROM]],
        ["Most frequent destinations", "destination", named(user[TO])],
        ["Days", "day", data.days.map((day, place) => [day, user[DAYS][place]]).filter(([, rows]) => rows)],
        ["Networks of these addresses", "network", byRows([...networks])],
        ["Outbound tags", "tag", named(user[TAGS])],
        ["Ports", "ports", named(user[PORTS])],
        ...origins(user[FROM]),
      ],
      command: `${ask("user NAME")} shows all of it`,
    };
  },
  destination(name) {
    const known = data.destinations[data.names.indexOf(name)];
    const users = new Map([...usersWith(TO, name), ...(known?.[4] ?? [])]);
    if (!users.size && !known) return null;
    const of = known ? `${number.format(users.size)} of ${number.format(known[2])} users` : `${several(users.size, "user whose list has", "users whose lists have")} it`;
    return {
      facts: `${known ? `${number.format(known[0])} rows (${number.format(known[1])} in the period before), ports ${known[3].join(", ")}; ` : ""}${of}${namesOf(name).length ? `; names: ${namesOf(name).join(", ")}` : ""}`,
      tables: [["Users", "user", byRows([...users])]],
      command: `${ask("reached NAME")} shows all of them`,
    };
  },
  address(name) {
    const users = usersWith(FROM, name);
    const rows = sum(users.map(([, count]) => count));
    return users.length ? { facts: `in ${networkOf(name)}`, tables: [["Users", "user", users], ["Network", "network", [[networkOf(name), rows]]], ...origins([[name, rows]])] } : null;
  },
  network(name) {
    return within((address) => networkOf(address) === name);
  },
  country(name) {
    return within((address) => placeOf(address)[0] === name, ["provider"]);
  },
  provider(name) {
    return within((address) => placeOf(address)[1] === name, ["country"]);
  },
  day(name) {
    const place = data.days.indexOf(name);
    return place < 0 || !data.charts.traffic ? null : ofDays([place], !data.byWeek);
  },
  week(monday) {
    const places = data.byWeek && data.charts.traffic ? daysOfWeek(monday) : [];
    if (!places.length) return null;
    const found = ofDays(places, true);
    const days = places.map((place) => [data.days[place], sum(data.users.map((user) => user[DAYS][place]))]);
    return { ...found, tables: [...found.tables, ["Days, with the rows of these users", "day", days.filter(([, rows]) => rows)]] };
  },
  tag(name) {
    const users = usersWith(TAGS, name);
    const goals = named(Object.hasOwn(data.goals, name) ? data.goals[name] : []); // a tag may be called "constructor"
    const all = new Map(data.users.map((user) => [user[NAME], user[ROWS]]));
    return users.length || goals.length ? {
      facts: shared(sum(users.map(([, rows]) => rows)), sum([...all.values()])),
      tables: [["Users", "user", users], [goals.length ? "Most frequent destinations" : "Destinations: only those of tags that go nowhere are counted", "destination", goals]],
      command: `${ask("outbound TAG")} shows all of it`,
    } : null;
  },
  ports(name) {
    const users = usersWith(PORTS, name);
    return users.length ? { facts: several(users.length, "user", "users"), tables: [["Users", "user", users]], command: `${ask("ports PORTS")} shows single ports` } : null;
  },
  node(name) {
    const node = data.nodes.find((one) => one[NAME] === name);
    if (!node) return null;
    const minutes = minutesOfZone();
    const gaps = data.gaps.filter(([of]) => of === name);
    const shown = gaps.slice(0, 50).map(([, since, until]) => [minutes.format(since * 1000), Math.round((until - since) / 360) / 10]);
    const few = shown.length < gaps.length ? `Nobody let in: the ${shown.length} longest times of ${number.format(gaps.length)}, from` : "Nobody let in, from";
    const last = node[NODE_LAST] ? `last accepted ${minutes.format(node[NODE_LAST] * 1000)}` : "nobody let in during these days";
    const series = data.charts.nodes.names.indexOf(name);
    const [begins, counts] = series >= 0 ? data.charts.nodes.zones[side()] : [[], []];
    const rows = begins.map((begin, at) => [minutes.format(begin * 1000), counts[series][at]]);
    return {
      facts: `${number.format(node[ROWS])} rows, ${number.format(node[NODE_UNPARSED])} unparsed lines, ${last}`,
      tables: [
        ["Days", "day", data.days.map((day, place) => [day, node[NODE_DAYS][place] ?? 0]).filter(([, rows]) => rows)],
        [few, "hours", shown],
        ...(rows.length ? [["Rows from", "rows", rows.reverse()]] : []),
      ],
      command: `${ask("traffic --node NAME", "")} shows its hours, report_logs.py --node NAME ${times} its users`,
    };
  },
};

// An address or a network, or the beginning of one; if it is whole, the command can have it.
const ADDRESS = /^[0-9a-f]*[.:][0-9a-f.:]*([/][0-9]*)?$/;
const IS_WHOLE = /^([0-9]+([.][0-9]+){3}|[0-9a-f.]*(:[0-9a-f.]+){7}|[0-9a-f:]*::([0-9a-f:.]*[0-9a-f])?)([/][0-9]+)?$/;
const askClient = (address, options = "") => ask(`client ${IS_WHOLE.test(address) ? address : "ADDRESS"}${options}`);

// The commands that show what is not on the page.
const ASKS = {
  user: () => ask("user NAME"),
  destination: () => ask("reached NAME"),
  address: (name) => askClient(name),
  network: (name) => askClient(name),
  tag: () => ask("outbound TAG"),
};

function missing(kind, name) {
  const command = kind === "day" ? "report_logs.py --days 1 --until DAY writes the page of a day"
    : Object.hasOwn(ASKS, kind) ? `${ASKS[kind](name)} shows what the database has of these days` : "";
  return { facts: "This page has nothing of it", tables: [], command };
}

let called;

function namesOf(address) {
  called ??= new Map(Object.entries(data.called).map(([number, of]) => [data.names[number], of.map((name) => data.names[name])]));
  return called.get(address) ?? [];
}

// Country and provider of an address, or the names of a destination that is an address, to be shown below it.
function namesBelow(kind, address) {
  if (kind === "destination" && namesOf(address).length) return [element("small", namesOf(address).join(", "))];
  if (kind !== "address") return [];
  const known = placeOf(address).map((name, place) => name !== undefined && link(KINDS[place], name)).filter(Boolean);
  if (!known.length) return [];
  const small = element("small");
  known.forEach((one, place) => small.append(place ? ", " : "", one));
  return [small];
}

// Whether a series of a chart is not a single tag: the rejected rows, or the sum of the smallest series.
const isTogether = (kind, name) => kind === "tag" && !Object.hasOwn(data.goals, name);

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
    cell.append(kind in VIEWS && !isTogether(kind, name) ? link(kind, name) : name);
    cell.append(...namesBelow(kind, name));
    cell.dataset.text = name; // what is copied and saved as CSV
    body.insertRow().append(cell, countCell(count));
  }
  box.append(scrolling(table, title), tools(table, title));
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
  const found = VIEWS[kind](name) ?? missing(kind, name);
  const heading = view.querySelector("h2");
  heading.textContent = name;
  heading.dataset.kind = kind;
  document.getElementById("view-facts").textContent = [found.facts, found.command].filter(Boolean).map((text) => `${text}.`).join(" ");
  view.querySelector("div.side").replaceChildren(...found.tables.map((table) => pairs(...table)));
  hideValue();
  if (!view.open) view.showModal();
  view.scrollTop = 0;
}

addEventListener("hashchange", showView);
view.addEventListener("close", () => {
  if (location.hash.includes("=")) history.pushState(null, "", "#");
});
view.addEventListener("click", (event) => event.target === view && view.close()); // a click outside of the dialog
