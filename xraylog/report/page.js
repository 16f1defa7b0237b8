"use strict";
// Functions that all parts of the page's script use. Strings of the data become text nodes, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const number = new Intl.NumberFormat("en-US");
const NAME = 0, ROWS = 1, TOGETHER = 2, ADDRESSES = 3, FIRST = 6, LAST = 7, DAYS = 8, FROM = 9, TO = 10, TAGS = 11, PORTS = 12;
const NODE_UNPARSED = 2, NODE_LAST = 3, NODE_DAYS = 4;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function countCell(count) {
  const cell = element("td", number.format(count));
  cell.dataset.value = count;
  return cell;
}

function scrolling(table, title) {
  const scroll = element("div", undefined, "scroll");
  scroll.tabIndex = 0; // so that the keyboard can scroll it
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", title);
  scroll.append(table);
  return scroll;
}

// With the whole address, because axe-core takes links that begin with # for skip links.
function link(kind, name) {
  const made = element("a", name);
  made.href = `${location.href.split("#")[0]}#${kind}=${encodeURIComponent(name)}`;
  return made;
}

// --- times ---

const zone = () => (document.documentElement.dataset.zone === "utc" ? "UTC" : data.zone);

function isKnown(timeZone) {
  try {
    return Boolean(new Intl.DateTimeFormat("sv-SE", { timeZone }));
  } catch {
    return false; // newer than the browser, like Europe/Kyiv, or no IANA name, like posix/Europe/Berlin
  }
}

function formatter(options) {
  return new Intl.DateTimeFormat("sv-SE", { timeZone: zone(), ...options }); // Swedish writes 2025-11-17 10:15
}

// The day of the config's zone in which a moment is: days of users and nodes are those, whatever the reader chose.
const zoneDays = new Intl.DateTimeFormat("sv-SE", { timeZone: isKnown(data.zone) ? data.zone : "UTC", dateStyle: "short" });
const dayOf = (seconds) => zoneDays.format(new Date(seconds * 1000));

// Minutes; in an hour that occurs twice, because clocks go back by 60 minutes or 30, with their difference from UTC.
function minutesOfZone() {
  const minutes = formatter({ dateStyle: "short", timeStyle: "short" });
  const format = (moment) => {
    const [text, time] = [minutes.format(moment), moment.valueOf()];
    if (![30, 60, -30, -60].some((by) => minutes.format(time + by * 60000) === text)) return text;
    const ahead = Math.ceil((Date.parse(`${text.replace(" ", "T")}Z`) - time) / 60000);
    const [hours, rest] = [Math.floor(Math.abs(ahead) / 60), Math.abs(ahead) % 60].map((part) => String(part).padStart(2, "0"));
    return `${text}${ahead < 0 ? "-" : "+"}${hours}:${rest}`;
  };
  return { format };
}

function writeTimes(within) {
  const minutes = minutesOfZone();
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

// --- what is kept for as long as the tab is open ---

const ZONE = "xraylog zone"; // the reader's choice

function kept(key) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null; // the browser keeps nothing of this page
  }
}

function keep(key, text) {
  try {
    sessionStorage.setItem(key, text);
  } catch {
    // then it ends with this page
  }
}

for (const choice of document.querySelectorAll("input[name=zone]")) {
  choice.addEventListener("change", () => {
    document.documentElement.dataset.zone = choice.value;
    keep(ZONE, choice.value);
    writeTimes(document);
    for (const details of document.querySelectorAll("details.numbers[open]")) details.dispatchEvent(new Event("toggle"));
  });
  if (choice.value === kept(ZONE) && !choice.disabled) {
    choice.checked = true;
    document.documentElement.dataset.zone = choice.value;
  }
}

// --- reloading ---

if (data.refresh) setInterval(() => document.getElementById("refresh").checked && location.reload(), data.refresh * 1000);
