// The script of the page: takes over the table that the server wrote, and keeps it true.
//
//   /live (server-sent events) -> rows (what is known) -> shown (filtered, sorted) -> the rows of the screen
//
// Only the rows near the screen are in the document, so 10,000 instances cost what 50 cost. Everything that comes
// from the registry is put in as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const STATES = ["unknown", "passing", "warning", "critical", "expired"];
const collator = new Intl.Collator("en", { numeric: true });
let skew = 0; // The server's clock less ours, in milliseconds: ages are the server's.

/** An element with a class and children; text becomes text. */
// Where room is short it is cut at its beginning, and never the port, which nobody could guess.
function reach(at) {
  const text = make("bdi", "", at);
  text.dir = "ltr";
  return text;
}

function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

/** `8s`, `3m 12s`, `5h 2m`, `12d 4h`: as `brief` in row.rs. */
function brief(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ${Math.floor((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86400)}d ${Math.floor((s % 86400) / 3600)}h`;
}

function age(element, time) {
  element.dataset.t = time;
  element.title = new Date(time).toISOString().slice(0, 19) + "Z";
  const text = brief(Date.now() + skew - time);
  if (element.textContent !== text) element.textContent = text;
}

function say(text) {
  $("said").textContent = text;
}

/** Copies by the button that was pressed. The clipboard API is for secure contexts only, so there is the old way too. */
async function copy(button) {
  const text = button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", "unseen", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus({ preventScroll: true });
  }
  say(`Copied ${text}`);
  button.classList.add("done");
  button.textContent = "copied";
  setTimeout(() => {
    button.classList.remove("done");
    button.textContent = "copy";
  }, 1500);
}

// --- the connection -------------------------------------------------------------------------------------------------

let link = "connecting"; // connecting, on, off
let lastWord = Date.now();

function showLink() {
  const status = $("status");
  const paused = $("pause").getAttribute("aria-pressed") === "true";
  const since = new Date(lastWord).toLocaleTimeString();
  const [name, text] =
    link === "off" ? ["off", `Disconnected: as of ${since}, trying again`]
    : paused ? ["paused", waiting.size ? `Paused: ${waiting.size} changed since` : "Paused"]
    : link === "on" ? ["on", "Live"] : ["connecting", "Connecting…"];
  status.className = `status ${name}`;
  if (status.textContent !== text) status.textContent = text;
  document.body.classList.toggle("stale", link === "off");
}

/** Follows /live for ever. `since()` says from where on, as LIFE-INDEX; `on` has a function for each event. */
function follow(path, since, on) {
  let source, timer, wait = 500;
  const down = () => {
    if (link !== "off") { link = "off"; showLink(); }
    source.close();
    clearTimeout(timer);
    // With jitter: all pages lose a server that restarts at the same time.
    timer = setTimeout(open, wait * (0.5 + Math.random()));
    wait = Math.min(wait * 2, 8000);
  };
  const open = () => {
    const mark = since();
    source = new EventSource(mark ? `${path}${path.includes("?") ? "&" : "?"}since=${mark}` : path);
    const word = () => { lastWord = Date.now(); wait = 500; if (link !== "on") { link = "on"; showLink(); } };
    source.onopen = word;
    source.onerror = down;
    for (const [kind, take] of Object.entries(on)) {
      source.addEventListener(kind, (event) => { word(); take(JSON.parse(event.data)); });
    }
    source.addEventListener("beat", word);
  };
  open();
  // A dead connection makes no error: there is a beat each 10 s.
  setInterval(() => {
    if (link === "on" && Date.now() - lastWord > 22000) down();
  }, 2000);
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });
}

// --- the table ------------------------------------------------------------------------------------------------------

const rows = new Map(); // Name -> row. A row is never changed, only replaced.
let names = []; // The names in natural order: web-2 before web-10.
let index = 0; // The catalog's index up to which `rows` is true,
let life = ""; // and which life of the server counts it.
let frozen = null; // What is shown while paused: the rows of the moment in which it began.
const waiting = new Set(); // Names that changed since then.
let shown = []; // The rows that match, in order.
let tops = new Float64Array(1); // Where each of them begins, and where the last ends, in pixels.
const drawn = new Map(); // Name -> { tr, row } of the rows in the document.
const filter = { q: "", states: new Set(), service: "", node: "", port: "", label: "", sort: "name", down: false };
const SHOWN_PORTS = 4;

function take(row) {
  row.hay = [row.name, row.service, row.node, ...row.addresses, ...row.ports.flatMap((port) => port.at),
    ...Object.entries(row.labels).map(([key, value]) => `${key}=${value}`)].join("\n").toLowerCase();
  if (!rows.has(row.name)) names.splice(place(row.name), 0, row.name);
  rows.set(row.name, row);
}

function forget(name) {
  if (!rows.delete(name)) return;
  const at = place(name);
  if (names[at] === name) names.splice(at, 1);
}

/** Where a name is, or belongs. */
function place(name) {
  let low = 0, high = names.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (byName(names[middle], name) < 0) low = middle + 1; else high = middle;
  }
  return low;
}

function byName(a, b) {
  return collator.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0);
}

/** As `View` in view.rs. */
function counts(row) {
  const f = filter;
  if (f.service && row.service !== f.service) return false;
  if (f.node && row.node !== f.node) return false;
  if (f.q && !row.hay.includes(f.q.toLowerCase())) return false;
  if (f.port) {
    const number = /^\d+$/.test(f.port) ? Number(f.port) : 0;
    const has = row.ports.some((port) => {
      if (!number) return port.name === f.port;
      const [first, last = first] = port.port.split("-").map(Number);
      return (first <= number && number <= last) || port.container === number;
    });
    if (!has) return false;
  }
  if (f.label) {
    const [key, value] = f.label.split(/=(.*)/s);
    if (!Object.hasOwn(row.labels, key) || (value !== undefined && row.labels[key] !== value)) return false;
  }
  return true;
}

const ORDERS = {
  service: (a, b) => byName(a.service, b.service),
  node: (a, b) => byName(a.node, b.node),
  // What needs a person first.
  state: (a, b) => "critical expired warning unknown passing".indexOf(a.state) - "critical expired warning unknown passing".indexOf(b.state),
  age: (a, b) => b.registered - a.registered,
};

/** Filters, sorts, counts, and draws. The first row on the screen stays where it is. */
function refresh() {
  const anchor = anchored();
  const all = frozen ?? names.map((name) => rows.get(name));
  const numbers = Object.fromEntries(STATES.map((state) => [state, 0]));
  shown = [];
  for (const row of all) {
    if (!counts(row)) continue;
    numbers[row.state] += 1;
    if (!filter.states.size || filter.states.has(row.state)) shown.push(row);
  }
  if (ORDERS[filter.sort]) shown.sort(ORDERS[filter.sort]);
  if (filter.down) shown.reverse();
  measure();
  summary(all.length, numbers);
  choices(all);
  draw();
  if (anchor) {
    const at = shown.findIndex((row) => row.name === anchor.name);
    if (at >= 0) {
      const off = origin() + tops[at] - scrollY - anchor.top;
      if (Math.abs(off) >= 1) { scrollBy(0, off); draw(); }
    }
  }
}

let line = 24, pad = 8, narrow = false;

/** The heights of the rows: as the style sheet says, so that nothing needs to be laid out to know them. */
function measure() {
  const style = getComputedStyle(document.documentElement);
  line = parseFloat(style.getPropertyValue("--line"));
  pad = parseFloat(style.getPropertyValue("--pad"));
  narrow = matchMedia("(max-width: 760px)").matches;
  tops = new Float64Array(shown.length + 1);
  shown.forEach((row, at) => { tops[at + 1] = tops[at] + height(row); });
}

function height(row) {
  const ports = Math.min(row.ports.length, SHOWN_PORTS) + (row.ports.length > SHOWN_PORTS ? 1 : 0);
  return (narrow ? 2 + ports : Math.max(row.output ? 2 : 1, ports)) * line + 2 * pad + 1;
}

/** Where the first row begins on the page. */
function origin() {
  return $("rows").getBoundingClientRect().top + scrollY;
}

/** The first row on the screen, when the table is scrolled, and how far below the screen's top it begins. */
function anchored() {
  const begin = origin();
  if (!shown.length || scrollY <= begin) return null;
  const at = Math.min(find(scrollY - begin), shown.length - 1);
  return { name: shown[at].name, top: begin + tops[at] - scrollY };
}

/** The row at that many pixels below the first. */
function find(y) {
  let low = 0, high = shown.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tops[middle + 1] <= y) low = middle + 1; else high = middle;
  }
  return low;
}

const OVERSCAN = 800;

/** Puts the rows near the screen into the document, and as much space as the others need around them. */
function draw() {
  const body = $("rows");
  $("table").hidden = shown.length === 0;
  if (!shown.length) { body.replaceChildren(); drawn.clear(); return; }
  const begin = origin();
  const from = find(Math.max(0, scrollY - begin - OVERSCAN));
  const to = Math.min(shown.length, find(scrollY - begin + innerHeight + OVERSCAN) + 1);
  let above = body.querySelector(".spacer.above"), below = body.querySelector(".spacer.below");
  if (!above) {
    body.replaceChildren(above = spacer("above"), below = spacer("below"));
    drawn.clear();
  }
  above.firstChild.style.height = `${tops[from]}px`;
  below.firstChild.style.height = `${tops[shown.length] - tops[to]}px`;
  const wanted = new Set();
  for (let at = from; at < to; at++) wanted.add(shown[at].name);
  for (const [name, { tr }] of drawn) if (!wanted.has(name)) { tr.remove(); drawn.delete(name); }
  let cursor = above.nextSibling;
  for (let at = from; at < to; at++) {
    const row = shown[at];
    let entry = drawn.get(row.name);
    if (!entry) {
      entry = { tr: make("tr"), row: null };
      entry.tr.setAttribute("role", "row");
      drawn.set(row.name, entry);
    }
    if (entry.row !== row) {
      const focus = entry.tr.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      fill(entry.tr, row);
      if (focus) entry.tr.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
      if (entry.row && entry.row.state !== row.state) flash(entry.tr);
      entry.row = row;
    }
    entry.tr.setAttribute("aria-rowindex", at + 2);
    if (entry.tr === cursor) cursor = cursor.nextSibling; else body.insertBefore(entry.tr, cursor);
  }
  $("table").setAttribute("aria-rowcount", shown.length + 1);
}

function spacer(name) {
  const tr = make("tr", `spacer ${name}`, make("td"));
  tr.setAttribute("aria-hidden", "true");
  tr.firstChild.colSpan = 8;
  return tr;
}

function flash(tr) {
  tr.classList.remove("flash");
  void tr.offsetWidth; // Begins the animation anew.
  tr.classList.add("flash");
}

function fill(tr, row) {
  const cell = (name, ...children) => {
    const td = make("td", name, ...children);
    td.setAttribute("role", "cell");
    return td;
  };
  const ports = row.ports.slice(0, SHOWN_PORTS);
  const name = make("a", "", row.name);
  name.href = `/instances/${encodeURIComponent(row.name)}`;
  name.dataset.key = "name";
  const labels = Object.entries(row.labels).map(([key, value]) => `${key}=${value}`).join("\n");
  if (labels) name.title = labels;
  const reach = ports.map((port) => reachLine(port));
  if (row.ports.length > SHOWN_PORTS) {
    const more = make("a", "", `${row.ports.length - SHOWN_PORTS} more`);
    more.href = name.href;
    more.dataset.key = "more";
    reach.push(make("div", "line", more));
  }
  const since = make("span", "for");
  age(since, row.since);
  const output = make("span", "output", row.output);
  output.title = row.output;
  const old = cell("c-age");
  age(old, row.registered);
  tr.className = `is-${row.state}`;
  tr.replaceChildren(
    cell("c-name", name),
    cell("c-service", row.service),
    cell("c-node", row.node),
    cell("c-reach", ...reach),
    cell("c-proto", ...ports.map((port) => make("div", "line", port.protocols))),
    cell("c-inner", ...ports.map((port) => make("div", "line", port.container ? String(port.container) : "–"))),
    cell("c-state", make("span", "badge", row.state), " ", since, ...(row.output ? [output] : [])),
    old,
  );
}

function reachLine(port) {
  const at = port.at[0] ?? port.port;
  const line = make("div", "line", make("span", "port", port.name), make("code", "", reach(at)));
  if (port.at.length > 1) {
    const also = make("span", "also", `+${port.at.length - 1}`);
    also.title = port.at.slice(1).join("\n");
    line.append(also);
  }
  line.append(make("span", "kind", port.protocols));
  const button = make("button", "act", "copy");
  button.type = "button";
  button.dataset.copy = at;
  button.dataset.key = `copy ${port.name}`;
  button.setAttribute("aria-label", `Copy ${at}`);
  line.append(button);
  if (port.open) {
    const open = make("a", "act", "open");
    open.href = port.open;
    open.target = "_blank";
    open.rel = "noopener noreferrer";
    open.dataset.key = `open ${port.name}`;
    open.setAttribute("aria-label", `Open ${port.open}`);
    line.append(open);
  }
  return line;
}

// --- what is around the table ---------------------------------------------------------------------------------------

let spoken = "", speaking;

function summary(total, numbers) {
  const counted = Object.values(numbers).reduce((sum, number) => sum + number, 0);
  for (const chip of $("counts").children) {
    const state = chip.dataset.state;
    const number = state ? numbers[state] : counted;
    chip.firstElementChild.textContent = number.toLocaleString("en");
    chip.toggleAttribute("data-zero", number === 0);
    const on = state ? filter.states.has(state) : filter.states.size === 0;
    if (on) chip.setAttribute("aria-current", "true"); else chip.removeAttribute("aria-current");
  }
  const plural = (number) => `${number.toLocaleString("en")} instance${number === 1 ? "" : "s"}`;
  const text = total === 0 ? "" : shown.length === total ? plural(total) : `${shown.length.toLocaleString("en")} of ${plural(total)}`;
  if ($("summary").textContent !== text) $("summary").textContent = text;
  $("none").hidden = total !== 0;
  $("nothing").hidden = total === 0 || shown.length !== 0;
  $("clear").hidden = !query().toString();
  document.title = `${numbers.critical ? `(${numbers.critical} critical) ` : ""}Instances · Portolan`;
  // A screen reader hears the outcome once it stands, not each step.
  clearTimeout(speaking);
  speaking = setTimeout(() => { if (text !== spoken) say(spoken = text); }, 1200);
}

/** The services and nodes to choose from. */
function choices(all) {
  for (const key of ["service", "node"]) {
    const select = $("filters").elements[key];
    const values = new Set(all.map((row) => row[key]));
    if (filter[key]) values.add(filter[key]);
    const known = `${values.size} ${filter[key]}`;
    if (document.activeElement === select || (select.dataset.known === known && [...select.options].every((option) => !option.value || values.has(option.value)))) continue;
    select.dataset.known = known;
    const any = make("option", "", "any");
    any.value = "";
    select.replaceChildren(any, ...[...values].sort(byName).map((value) => make("option", "", value)));
    select.value = filter[key];
  }
}

/** The filters as the page's address has them. */
function query() {
  const query = new URLSearchParams();
  for (const key of ["q", "service", "node", "port", "label"]) if (filter[key]) query.set(key, filter[key]);
  if (filter.states.size) query.set("state", [...filter.states].join(","));
  if (filter.sort !== "name" || filter.down) query.set("sort", (filter.down ? "-" : "") + filter.sort);
  return query;
}

function readAddress() {
  const query = new URLSearchParams(location.search);
  for (const key of ["q", "service", "node", "port", "label"]) {
    filter[key] = (query.get(key) ?? "").trim();
    const field = $("filters").elements[key];
    if (field.tagName === "SELECT" && filter[key] && ![...field.options].some((option) => option.value === filter[key])) {
      field.append(make("option", "", filter[key]));
    }
    field.value = filter[key];
  }
  filter.states = new Set(query.getAll("state").flatMap((states) => states.split(",")).filter((state) => STATES.includes(state)));
  const sort = query.get("sort") ?? "name";
  filter.down = sort.startsWith("-");
  filter.sort = sort.replace("-", "") in ORDERS ? sort.replace("-", "") : "name";
  showSort();
}

function showSort() {
  for (const th of document.querySelectorAll("th[data-sort]")) {
    if (th.dataset.sort === filter.sort) th.setAttribute("aria-sort", filter.down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  }
}

/** After a change of the filters by hand. */
function chosen() {
  const text = query().toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
  try { sessionStorage.setItem("list", location.search); } catch { /* A browser without storage has no way back. */ }
  if (ready) refresh();
}

let ready = false, due = false, timed = 0;

/** Refreshes once in the next frame; when that takes long, less often. */
function soon() {
  if (due) return;
  due = true;
  setTimeout(() => requestAnimationFrame(() => {
    due = false;
    const begin = performance.now();
    refresh();
    timed = performance.now() - begin;
  }), timed > 20 ? timed * 4 : 0);
}

function changed(name) {
  if (frozen) { waiting.add(name); showLink(); } else soon();
}

function list() {
  readAddress();
  addEventListener("popstate", () => { readAddress(); if (ready) refresh(); });
  const form = $("filters");
  form.addEventListener("input", (event) => { filter[event.target.name] = event.target.value.trim(); chosen(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", (event) => {
    event.preventDefault();
    history.replaceState(null, "", location.pathname);
    readAddress();
    chosen();
    form.elements.q.focus();
  });
  $("counts").addEventListener("click", (event) => {
    const chip = event.target.closest("a");
    if (!chip || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const state = chip.dataset.state;
    if (!state) filter.states.clear();
    else if (!filter.states.delete(state)) filter.states.add(state);
    chosen();
  });
  for (const th of document.querySelectorAll("th[data-sort]")) {
    const button = make("button", "", th.textContent.trim());
    button.type = "button";
    th.replaceChildren(button);
    button.addEventListener("click", () => {
      filter.down = filter.sort === th.dataset.sort && !filter.down;
      filter.sort = th.dataset.sort;
      showSort();
      chosen();
    });
  }
  $("pause").addEventListener("click", () => {
    const paused = $("pause").getAttribute("aria-pressed") !== "true";
    $("pause").setAttribute("aria-pressed", String(paused));
    $("pause").textContent = paused ? "Resume" : "Pause";
    frozen = paused ? names.map((name) => rows.get(name)) : null;
    waiting.clear();
    showLink();
    if (ready) refresh();
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      form.elements.q.focus();
      form.elements.q.select();
    } else if (event.key === "Escape" && event.target === form.elements.q && !form.elements.q.value) {
      form.elements.q.blur();
    }
  });
  let drawing = false;
  const redraw = () => {
    if (!ready || drawing) return;
    drawing = true;
    requestAnimationFrame(() => { drawing = false; draw(); });
  };
  addEventListener("scroll", redraw, { passive: true });
  addEventListener("resize", () => { if (ready) { measure(); redraw(); } });
  let coming = null;
  follow("/live", () => (life && !coming ? `${life}-${index}` : ""), {
    begin: (begin) => { coming = []; life = begin.life; skew = begin.now - Date.now(); },
    rows: (some) => { if (coming) for (const row of some) coming.push(row); },
    ready: (end) => {
      const before = new Set(rows.keys());
      rows.clear();
      names = coming.map((row) => row.name).sort(byName);
      for (const row of coming) rows.set(row.name, row);
      for (const row of coming) { take(row); before.delete(row.name); }
      coming = null;
      index = end.index;
      if (frozen) for (const name of before) waiting.add(name);
      ready = true;
      if (frozen) showLink(); else refresh();
    },
    patch: (patch) => {
      index = patch.index;
      for (const row of patch.set) { take(row); changed(row.name); }
      for (const name of patch.gone) { forget(name); changed(name); }
    },
  });
}

// --- the page of one instance ---------------------------------------------------------------------------------------

function one() {
  $("pause").hidden = true;
  try { $("back").href = `/${sessionStorage.getItem("list") ?? ""}`; } catch { /* The way back has no filters then. */ }
  const tidy = () => { for (const button of document.querySelectorAll("button.copy")) button.hidden = false; };
  // The server writes this page better than a script could: fetch its part again when something changed.
  let asked = 0, first = true;
  const fetchAgain = async () => {
    const mine = ++asked;
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const detail = page.getElementById("detail");
    if (mine !== asked || !detail) return;
    const focus = document.activeElement?.dataset?.copy;
    $("detail").replaceWith(detail);
    document.title = page.title;
    tidy();
    if (focus) document.querySelector(`[data-copy="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
    const badge = detail.querySelector("h1 .badge");
    say(badge ? `${document.body.dataset.name} is ${badge.textContent}` : `${document.body.dataset.name} has left the catalog`);
  };
  const again = () => fetchAgain().catch(() => { /* The connection's own state says so. */ });
  let at = 0;
  tidy();
  follow(`/live?name=${encodeURIComponent(document.body.dataset.name)}`, () => (at ? `${life}-${at}` : ""), {
    begin: (begin) => { life = begin.life; at = 0; skew = begin.now - Date.now(); },
    ready: (end) => { at = end.index; if (!first) again(); first = false; },
    patch: (patch) => { at = patch.index; again(); },
  });
}

// --- for every page -------------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-copy]");
  if (button) copy(button);
});
setInterval(() => {
  const now = Date.now() + skew;
  for (const element of document.querySelectorAll("[data-t]")) {
    const text = brief(now - Number(element.dataset.t));
    if (element.textContent !== text) element.textContent = text;
  }
}, 1000);

const page = document.body.dataset.page;
if (page === "instances" || page === "instance") {
  document.querySelector(".live").hidden = false;
  if (page === "instances") list(); else one();
}
