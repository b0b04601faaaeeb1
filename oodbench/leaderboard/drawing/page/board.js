"use strict";
(() => {
  const root = document.documentElement;
  const KEY = "oodbench-theme";
  const memory = {
    // Storage may be missing or forbidden, above all on pages from disk.
    get() { try { return localStorage.getItem(KEY); } catch { return null; } },
    set(value) { try { localStorage.setItem(KEY, value); } catch { /* then it is forgotten */ } },
  };
  root.classList.add("js");
  const chosen = memory.get();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

  // Elements. Text is only ever set as text.

  const SVG = "http://www.w3.org/2000/svg";
  const filled = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) element.setAttribute(name, "");
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const el = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);
  const svg = (name, attributes = {}, ...children) => filled(document.createElementNS(SVG, name), attributes, children);
  let counter = 0;
  const fresh = (stem) => `${stem}-${++counter}`;

  // Light and dark

  function theme() {
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const show = () => button.setAttribute("aria-pressed", String(dark()));
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      memory.set(root.dataset.theme);
      show();
    });
    system.addEventListener("change", show);
    button.hidden = false;
    show();
  }

  // Tables

  function board(table) {
    const tools = document.querySelector(`.tools[data-for="${table.id}"]`);
    const heads = [...table.tHead.rows[0].cells];
    const bodies = [...table.tBodies];
    const rows = bodies.flatMap((body) => [...body.rows].filter((row) => !row.classList.contains("line")));
    const places = new Map(rows.map((row, place) => [row, place]));
    let sorted = "sorted by rank";

    function key(row, column, text) {
      const cell = row.cells[column];
      if (text) return cell.textContent;
      return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    }
    function sort(column) {
      const head = heads[column];
      const { better } = head.dataset;
      const worse = better === "ascending" ? "descending" : "ascending";
      const direction = head.getAttribute("aria-sort") === better ? worse : better;
      const sign = direction === "ascending" ? 1 : -1;
      const text = "text" in head.dataset;
      for (const body of bodies) {
        // Each body on its own: unranked rows stay below the line.
        const own = rows.filter((row) => row.parentNode === body);
        own.sort((one, other) => {
          const a = key(one, column, text), b = key(other, column, text);
          if (a === null || b === null) return (a === null) - (b === null) || places.get(one) - places.get(other);
          const order = text ? a.localeCompare(b, "en", { numeric: true }) : a - b;
          return sign * order || places.get(one) - places.get(other);
        });
        body.append(...own);
      }
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction);
      const label = head.querySelector(".sort").textContent;
      sorted = `sorted by ${label}, ${text ? direction : direction === better ? "best first" : "worst first"}`;
      announce();
      move.settle();
    }
    heads.forEach((head, column) => {
      const label = head.querySelector(".label");
      const button = el("button", { type: "button", class: "sort" }, label.textContent);
      button.addEventListener("click", () => sort(column));
      label.replaceChildren(button);
    });
    heads[0].setAttribute("aria-sort", "ascending");

    function announce() {
      const shown = rows.filter((row) => !row.hidden).length;
      const group = tools.querySelector(".groups")?.value;
      const columns = group ? `, columns of the ${group} group` : "";
      tools.querySelector(".count").textContent = `${shown} of ${rows.length} rows${columns}, ${sorted}`;
    }
    function filter() {
      const wanted = tools.querySelector(".detectors").value.toLowerCase().split(",").map((part) => part.trim());
      const terms = wanted.filter(Boolean);
      for (const row of rows) {
        const name = row.querySelector("th.detector").textContent.toLowerCase();
        row.hidden = terms.length > 0 && !terms.some((term) => name.includes(term));
      }
      for (const line of table.querySelectorAll(".line")) {
        line.hidden = rows.every((row) => row.parentNode !== line.parentNode || row.hidden);
      }
      announce();
      move.settle();
    }
    function group(event) {
      heads.forEach((head, column) => {
        const hidden = Boolean(event.target.value) && "group" in head.dataset && head.dataset.group !== event.target.value;
        head.hidden = hidden;
        for (const row of rows) row.cells[column].hidden = hidden;
      });
      announce();
      move.settle();
    }
    tools.querySelector(".detectors").addEventListener("input", filter);
    tools.querySelector(".groups")?.addEventListener("change", group);
    const numbers = tools.querySelector(".numbers");
    const showNumbers = () => table.classList.toggle("shown", numbers.checked);
    numbers.addEventListener("change", showNumbers);
    const move = arrows(table);
    tools.hidden = false;
    // Browsers keep what was typed over a reload.
    showNumbers();
    filter();
    const groups = tools.querySelector(".groups");
    if (groups?.value) group({ target: groups });
  }

  /** One figure of a table is a tab stop; arrow keys move on to the others. */
  function arrows(table) {
    const visible = (cell) => cell && !cell.hidden && !cell.parentNode.hidden;
    const cells = () => [...table.querySelectorAll("td.f")].filter(visible);
    let current = null;
    const stop = (cell) => {
      if (current) current.tabIndex = -1;
      current = cell;
      if (cell) cell.tabIndex = 0;
    };
    const settle = () => { if (!visible(current)) stop(cells()[0] ?? null); };
    const neighbour = (cell, sideways, down) => {
      const rows = [...table.rows].filter((row) => !row.hidden && row.querySelector("td.f"));
      let row = rows.indexOf(cell.parentNode), column = cell.cellIndex;
      for (;;) {
        row += down;
        column += sideways;
        const next = rows[row]?.cells[column];
        if (!next || !next.classList.contains("f")) return null;
        if (visible(next)) return next;
      }
    };
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    table.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      const cell = event.target.closest("td.f");
      if (!step || !cell || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      const next = neighbour(cell, ...step);
      if (!next) return;
      stop(next);
      next.focus();
    });
    settle();
    return { settle };
  }

  /** Escape hides the numbers that pointing at a figure shows, until it moves on. */
  function escape() {
    document.addEventListener("keydown", (event) => root.classList.toggle("quiet", event.key === "Escape"));
    // What appears and disappears under a pointer at rest makes events too.
    let last = "";
    document.addEventListener("pointermove", ({ clientX, clientY }) => {
      if (last !== `${clientX} ${clientY}`) root.classList.remove("quiet");
      last = `${clientX} ${clientY}`;
    });
  }

  // Heat maps of the layers: one at a time

  function layers(maps) {
    const all = [...maps.querySelectorAll(".scroll")];
    const names = all.map((one) => one.querySelector("caption b").textContent);
    const select = choice(names);
    const show = () => all.forEach((one, place) => { one.hidden = place !== Number(select.value); });
    select.addEventListener("change", show);
    maps.before(el("div", { class: "tools" }, labelled("Unknown set", select)));
    maps.classList.add("single");
    show();
  }

  // Charts

  const labelled = (text, control) => el("label", {}, text, " ", control);
  const choice = (names) => el("select", {}, ...names.map((name, place) => el("option", { value: place }, name)));
  const box = (checked) => {
    const input = el("input", { type: "checkbox" });
    input.checked = checked;
    return input;
  };
  const style = (place) => `k${place % 7} d${Math.floor(place / 7) % 5}`;
  const swatch = (classes, extra = []) =>
    svg("svg", { width: 30, height: 12, "aria-hidden": "true" }, ...extra, svg("path", { class: `curve ${classes}`, d: "M1 6H29" }));
  const digits = (value) => (value === 0 ? "0" : Math.abs(value) < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(4))));
  const fixed = (value) => value.toFixed(4);

  function ticks(low, high, about) {
    const raw = (high - low) / about;
    const size = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * size).find((one) => one >= raw * 0.999);
    const found = [];
    for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place++) found.push(place * step);
    return found;
  }
  function decades(low, high) {
    const found = [];
    for (let power = Math.ceil(Math.log10(low) - 1e-9); power <= Math.log10(high) + 1e-9; power++) found.push(10 ** power);
    return found;
  }

  /** Axes; gives back how to place a point and where to draw. */
  function axes(width, height, x, y, title, description) {
    const levels = ticks(y.low, y.high, height / 70);
    // Room for the longest number and, left of it, the label.
    const left = 32 + 7.5 * Math.max(...levels.map((at) => digits(at).length)), right = 14, top = 12, bottom = 44;
    const ids = [fresh("title"), fresh("desc")];
    const picture = svg(
      "svg",
      { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": ids[0], "aria-describedby": ids[1] },
      svg("title", { id: ids[0] }, title),
      svg("desc", { id: ids[1] }, description),
    );
    const share = (axis, value) =>
      axis.log
        ? Math.log(Math.max(value, axis.low) / axis.low) / Math.log(axis.high / axis.low)
        : (value - axis.low) / (axis.high - axis.low);
    const px = (value) => left + share(x, value) * (width - left - right);
    const py = (value) => height - bottom - share(y, value) * (height - top - bottom);
    const round = (value) => Math.round(value * 10) / 10;
    for (const at of x.log ? decades(x.low, x.high) : ticks(x.low, x.high, width / 90)) {
      picture.append(
        svg("line", { class: "grid", x1: round(px(at)), x2: round(px(at)), y1: top, y2: height - bottom }),
        svg("text", { x: round(px(at)), y: height - bottom + 16, "text-anchor": "middle" }, digits(at)),
      );
    }
    for (const at of levels) {
      picture.append(
        svg("line", { class: "grid", x1: left, x2: width - right, y1: round(py(at)), y2: round(py(at)) }),
        svg("text", { x: left - 6, y: round(py(at)) + 4, "text-anchor": "end" }, digits(at)),
      );
    }
    picture.append(
      svg("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - right}` }),
      svg("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, x.label),
      svg("text", { transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label),
    );
    const path = (xs, ys) => "M" + xs.map((value, i) => `${round(px(value))} ${round(py(ys[i]))}`).join("L");
    return { picture, path, px, py, round };
  }

  /** A table of numbers behind a disclosure, filled when it is opened. */
  function figures(label, content) {
    const holder = el("div", { class: "scroll figures-box", role: "region", tabindex: "0", "aria-label": label });
    const details = el("details", {}, el("summary", {}, "Numbers", el("span", { class: "vh" }, `: ${label}`)), holder);
    const update = () => {
      if (!details.open) return;
      const { head, rows } = content();
      holder.replaceChildren(
        el(
          "table",
          { class: "figures" },
          el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
          el("tbody", {}, ...rows.map(([first, ...rest]) =>
            el("tr", {}, el("th", { scope: "row" }, first), ...rest.map((text) => el("td", {}, text))))),
        ),
      );
    };
    details.addEventListener("toggle", update);
    return { details, update };
  }

  /** Draws again whenever the room for it changes. */
  function fitted(plot, draw) {
    let last = 0;
    const size = () => Math.max(270, Math.min(576, Math.floor(plot.clientWidth)));
    const redraw = () => { last = size(); draw(last); };
    redraw();
    if (window.ResizeObserver) new ResizeObserver(() => { if (size() !== last) redraw(); }).observe(plot);
    return redraw;
  }

  function lines(host, { name, order, on, sets, curve, x, y, chance, measure }) {
    const plot = el("div", { class: "plot" });
    const tools = el("div", { class: "tools" });
    const select = sets.length ? choice(sets) : null;
    if (select) tools.append(labelled("Unknown set", select));
    const log = x.logFrom ? box(false) : null;
    if (log) tools.append(el("label", {}, log, ` logarithmic ${x.label}`));

    const first = new Set(on);
    // Those that are on at first get the first colours.
    const places = [...on, ...order.map((_, i) => i).filter((i) => !first.has(i))];
    const boxes = new Map();
    const list = el("ul", { class: "names" });
    for (const [place, detector] of places.entries()) {
      const input = box(first.has(detector));
      const label = el("label", {}, input, swatch(style(place)), el("span", {}, order[detector]));
      boxes.set(detector, { input, place });
      input.addEventListener("change", () => redraw());
      const heat = (hot) => () => {
        plot.classList.toggle("hot", hot && input.checked);
        plot.querySelector(`[data-detector="${detector}"]`)?.classList.toggle("over", hot);
      };
      label.addEventListener("pointerenter", heat(true));
      label.addEventListener("pointerleave", heat(false));
      input.addEventListener("focus", heat(true));
      input.addEventListener("blur", heat(false));
      list.append(el("li", {}, label));
    }
    const set = (text, wanted) => {
      const button = el("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        for (const [detector, { input }] of boxes) input.checked = wanted(detector);
        redraw();
      });
      return button;
    };
    const buttons = el("div", { class: "buttons" },
      set("Default", (detector) => first.has(detector)), set("All", () => true), set("None", () => false));
    const chooser = el("fieldset", {}, el("legend", {}, `Detectors of the ${name}`), buttons, list);

    const where = () => (select ? Number(select.value) : 0);
    const shown = () => places.filter((detector) => boxes.get(detector).input.checked)
      .map((detector) => ({ detector, curve: curve(detector, where()) })).filter((one) => one.curve);
    const title = () => `${name}${select ? `, ${sets[where()]}` : ""}`;
    const table = figures(`${name}${host.dataset.of}`, () => {
      const those = shown();
      const grid = those[0]?.curve.x ?? [];
      return {
        head: [x.label, ...those.map((one) => order[one.detector])],
        rows: grid.map((at, i) => [digits(at), ...those.map((one) => fixed(one.curve.y[i]))]),
      };
    });
    const redraw = fitted(plot, (width) => {
      const those = shown();
      const top = y.high ?? (Math.max(...those.flatMap((one) => one.curve.y), 1e-6) * 1.05);
      const logarithmic = Boolean(log?.checked);
      const across = logarithmic ? { ...x, low: x.logFrom, log: true } : x;
      const told = those.map((one) => `${order[one.detector]} ${measure(one.curve)}`).join(", ");
      const { picture, path } = axes(
        width, Math.round(Math.min(width * 0.82, 460)), across, { ...y, high: top }, title(),
        those.length ? `${y.label} against ${x.label}; ${measure.of}: ${told}.` : "No detector is chosen.",
      );
      if (chance) {
        const grid = those[0]?.curve.x.filter((at) => at >= across.low) ?? [0, 1];
        picture.append(svg("path", { class: "chance", d: path(grid, grid) }));
      }
      for (const one of those.toReversed?.() ?? [...those].reverse()) {
        const { place } = boxes.get(one.detector);
        const keep = one.curve.x.map((at, i) => [at, one.curve.y[i]]).filter(([at]) => !logarithmic || at >= across.low);
        picture.append(svg("path", {
          class: `curve ${style(place)}`, "data-detector": one.detector,
          d: path(keep.map(([at]) => at), keep.map(([, value]) => value)),
        }, svg("title", {}, order[one.detector])));
      }
      plot.replaceChildren(picture);
      table.update();
    });
    select?.addEventListener("change", redraw);
    log?.addEventListener("change", redraw);
    host.append(...(tools.childNodes.length ? [tools] : []), el("div", { class: "panel" }, plot, chooser), table.details);
    redraw();
  }

  const KINDS = [
    { name: "known, right", classes: "k0", dashes: "", hatch: null },
    { name: "known, wrong", classes: "k1", dashes: "d1", hatch: "M0 8L8 0" },
    { name: "unknown", classes: "k6", dashes: "d2", hatch: "M0 4H1.5M4 0H5.5" },
  ];
  const hatched = (kind, id) => svg("pattern", { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" },
    kind.hatch ? svg("path", { class: `hatch ${kind.classes}`, d: kind.hatch })
      : svg("path", { class: kind.classes, d: "M0 4H8", "stroke-width": 8, opacity: 0.16 }));

  function scores(host, { order, on, sets, curve }) {
    const plot = el("div", { class: "plot" });
    const select = choice(sets);
    const detectors = choice(order);
    detectors.value = String(on[0] ?? 0);
    const legend = el("ul", { class: "kinds" }, ...KINDS.map((kind) => {
      const id = fresh("key");
      return el("li", {}, svg("svg", { width: 40, height: 20, "aria-hidden": "true" }, svg("defs", {}, hatched(kind, id)),
        svg("rect", { width: 40, height: 20, fill: `url(#${id})` }),
        svg("path", { class: `curve ${kind.classes} ${kind.dashes}`, d: "M1 2H39" })), kind.name);
    }));
    const chosen = () => curve(Number(detectors.value), Number(select.value));
    const title = () => `Distribution of the scores of ${order[detectors.value]} on ${sets[select.value]}`;
    const parts = (one) => [one.right, one.wrong, one.unknown];
    const table = figures(`distributions of scores${host.dataset.of}`, () => {
      const one = chosen();
      return {
        head: ["score from", "to", ...KINDS.map((kind) => kind.name)],
        rows: one ? one.right.map((_, i) => [digits(one.edges[i]), digits(one.edges[i + 1]), ...parts(one).map((part) => fixed(part[i]))]) : [],
      };
    });
    const redraw = fitted(plot, (width) => {
      const one = chosen();
      if (!one) {
        plot.replaceChildren(el("p", {}, "There is no distribution of this detector on this set."));
        return;
      }
      const median = (part) => {
        let sum = 0;
        const i = part.findIndex((share) => (sum += share) >= 0.5);
        return i < 0 ? "none" : digits((one.edges[i] + one.edges[i + 1]) / 2);
      };
      const { picture, px, py, round } = axes(
        width, Math.round(Math.min(width * 0.66, 360)),
        { label: "score (larger: more likely wrong or unknown)", low: one.edges[0], high: one.edges[one.edges.length - 1] },
        { label: "share of samples", low: 0, high: Math.max(...parts(one).flat(), 1e-6) * 1.05 },
        title(), `Middle of the bin that holds the median: ${KINDS.map((kind, i) => `${kind.name} ${median(parts(one)[i])}`).join(", ")}.`,
      );
      const floor = round(py(0));
      KINDS.forEach((kind, place) => {
        const part = parts(one)[place];
        const steps = part.map((share, i) => `V${round(py(share))}H${round(px(one.edges[i + 1]))}`).join("");
        const outline = `M${round(px(one.edges[0]))} ${floor}${steps}V${floor}`;
        const id = fresh("hatch");
        picture.append(
          svg("defs", {}, hatched(kind, id)),
          svg("path", { class: "area", d: `${outline}z`, fill: `url(#${id})` }),
          svg("path", { class: `curve ${kind.classes} ${kind.dashes}`, d: outline }),
        );
      });
      plot.replaceChildren(picture);
      table.update();
    });
    select.addEventListener("change", redraw);
    detectors.addEventListener("change", redraw);
    host.append(el("div", { class: "tools" }, labelled("Unknown set", select), labelled("Detector", detectors)),
      el("div", { class: "panel" }, plot, legend), table.details);
    redraw();
  }

  /** The height of a curve, by straight lines between its points. */
  function at(xs, ys, wanted) {
    const after = xs.findIndex((value) => value >= wanted);
    if (after <= 0) return ys[after < 0 ? ys.length - 1 : 0].toFixed(3);
    const part = (wanted - xs[after - 1]) / (xs[after] - xs[after - 1]);
    return (ys[after - 1] + part * (ys[after] - ys[after - 1])).toFixed(3);
  }

  function charts() {
    const boards = JSON.parse(document.getElementById("data").textContent);
    for (const host of document.querySelectorAll(".chart")) {
      const { sets, grids, curves, risks } = boards[host.dataset.board];
      const found = new Map(curves.of.map(([detector, set, grid, tpr, edges, right, wrong, unknown]) =>
        [`${detector}/${set}`, { x: grids[grid], y: tpr, edges, right, wrong, unknown }]));
      const curve = (detector, set) => found.get(`${detector}/${set}`);
      if (host.dataset.chart === "roc") {
        const positive = grids.flat().filter((value) => value > 0);
        lines(host, {
          name: "ROC curves", ...curves, sets, curve, chance: true,
          x: { label: "false positive rate", low: 0, high: 1, logFrom: Math.min(...positive, 0.1) },
          y: { label: "true positive rate", low: 0, high: 1 },
          measure: Object.assign((one) => at(one.x, one.y, 0.05), { of: "true positive rate at the false positive rate 0.05" }),
        });
      } else if (host.dataset.chart === "scores") {
        scores(host, { ...curves, sets, curve });
      } else {
        const risk = new Map(risks.of.map(([detector, grid, values]) => [detector, { x: grids[grid], y: values }]));
        lines(host, {
          name: "risk–coverage curves", ...risks, sets: [], curve: (detector) => risk.get(detector), chance: false,
          x: { label: "coverage", low: 0, high: 1 }, y: { label: "risk", low: 0 },
          measure: Object.assign((one) => at(one.x, one.y, 0.9), { of: "risk at the coverage 0.9" }),
        });
      }
    }
  }

  // The command

  function copies() {
    for (const button of document.querySelectorAll(".copy")) {
      const code = document.getElementById(button.dataset.copies);
      const status = button.parentNode.querySelector(".copied");
      button.hidden = false;
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(code.textContent);
          status.textContent = "Copied.";
        } catch {
          getSelection().selectAllChildren(code);
          status.textContent = "Selected; copy it with the keyboard.";
        }
      });
    }
  }

  function print() {
    const closed = () => [...document.querySelectorAll(".claim details:not([open])")];
    let opened = [];
    addEventListener("beforeprint", () => { opened = closed(); for (const one of opened) one.open = true; });
    addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
  }

  document.addEventListener("DOMContentLoaded", () => {
    theme();
    document.querySelectorAll("table.board").forEach(board);
    document.querySelectorAll("table.heat").forEach(arrows);
    document.querySelectorAll(".maps.layers").forEach(layers);
    escape();
    charts();
    copies();
    print();
  });
})();
