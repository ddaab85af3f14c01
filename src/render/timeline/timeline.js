"use strict";
// Makes the timeline zoom and pan, say what is under the cursor, hide threads, and link a moment to its stack. Draws from
// the data beside it, in the same way as the picture was drawn without it. Names in the data are the target's: they
// become text (textContent), never markup.
(() => {
  const script = document.currentScript;
  const svg = (script && script.ownerSVGElement) || document.querySelector("svg.gilspy");
  const data = JSON.parse(svg.querySelector('script[type="application/json"]').textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const HTML = "http://www.w3.org/1999/xhtml";
  const { left, columns, slots, parts } = data;
  const right = left + columns;
  const slotSeconds = data.duration_s / slots;
  const BLOCKED = 5;
  const FEWEST_SLOTS = 8;
  const WORDS = 14;

  const make = (name, attributes, ...children) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const html = (name, className, text) => {
    const element = document.createElementNS(HTML, name);
    if (className) element.setAttribute("class", className);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // The data, a value for each slot.
  const spread = (runs, width, types) => {
    const lists = types.map((Type) => new Type(slots));
    for (let place = 0, slot = 0; place < runs.length; place += width + 1) {
      const end = Math.min(slot + runs[place], slots);
      lists.forEach((list, at) => list.fill(runs[place + 1 + at], slot, end));
      slot = end;
    }
    return lists;
  };
  const lanes = data.lanes.map((lane) => {
    const [mix, stack] = spread(lane.runs, 2, [Int32Array, Int32Array]);
    return { ...lane, mix, stack };
  });
  const gils = data.gils.map((gil, number) => {
    const [waiters, others, unknown, off, unseen] = spread(gil.runs, 5, Array(5).fill(Int32Array));
    const own = lanes.slice(gil.first, gil.first + gil.lanes);
    const holds = data.holds.filter(([of]) => of === number);
    const switches = data.switches.filter(([of]) => of === number).map(([, at]) => at);
    return { ...gil, waiters, others, unknown, off, unseen, own, holds, switches };
  });
  const shareOf = (lane, state) => (slot) => data.mixes[lane.mix[slot]][state] / parts;

  // The part of the time that is shown, in slots.
  let view = { from: 0, to: slots };
  const isWhole = () => view.from <= 0 && view.to >= slots;
  const secondsAt = (x) => (view.from + ((x - left) / columns) * (view.to - view.from)) * slotSeconds;
  const xAt = (seconds) => left + ((seconds / slotSeconds - view.from) / (view.to - view.from)) * columns;
  const slotAt = (x) => Math.min(slots - 1, Math.max(0, Math.floor(secondsAt(x) / slotSeconds)));

  // The mean of what the slots of each column hold.
  const means = (of) => {
    const width = (view.to - view.from) / columns;
    return Array.from({ length: columns }, (_, column) => {
      const from = view.from + column * width;
      const to = from + width;
      let sum = 0;
      for (let slot = Math.floor(from); slot < to && slot < slots; slot += 1) {
        sum += of(slot) * (Math.min(slot + 1, to) - Math.max(slot, from));
      }
      return sum / width;
    });
  };

  // Paths of boxes, stacked, as in boxes.rs.
  const stacked = (height) => {
    const below = new Array(columns).fill(0);
    const most = height * 2;
    const grains = (share) => (share > 0.001 ? Math.max(1, Math.round(Math.min(share, 1) * most)) : 0);
    return (shares) => {
      const heights = shares.map((share, column) => Math.min(grains(share), most - below[column]));
      let path = "";
      for (let start = 0; start < columns; ) {
        let end = start + 1;
        while (end < columns && heights[end] === heights[start] && below[end] === below[start]) end += 1;
        if (heights[start] > 0) {
          const bottom = height - below[start] / 2;
          path += `M${left + start} ${bottom}h${end - start}v-${heights[start] / 2}h-${end - start}z`;
        }
        start = end;
      }
      heights.forEach((value, column) => (below[column] += value));
      return path;
    };
  };
  const area = (path, className) => (path ? [make("path", { d: path, class: className })] : []);

  const drawLane = (lane, { from, to }) => {
    const add = stacked(data.lane);
    const states = data.states.flatMap((_, state) =>
      state === BLOCKED ? [] : area(add(means(shareOf(lane, state))), `s${state}`));
    const { unseen } = gils.find(({ own }) => own.includes(lane));
    const lives = (slot) => (slot + 1) * slotSeconds > Number(from) && slot * slotSeconds < Number(to);
    return [...states, ...area(add(means((slot) => (lives(slot) ? unseen[slot] / parts : 0))), "unseen")];
  };
  const drawSwitches = (gil, height) => {
    let last = -Infinity;
    return gil.switches.flatMap((at) => {
      const x = xAt(at);
      if (x < left || x > right || x - last < 3) return [];
      last = x;
      return [make("rect", { class: "long", x: x - 1, y: 0, width: 2, height })];
    });
  };
  const drawStrip = (gil) => {
    const add = stacked(data.strip);
    const held = (lane) => (slot) => (shareOf(lane, 0)(slot) + shareOf(lane, 1)(slot)) * lane.threads;
    const rest = [["others", "t9"], ["unknown", "s6"], ["off", "off"], ["unseen", "unseen"]];
    return [
      ...gil.own.flatMap((lane) => area(add(means(held(lane))), lane.class)),
      ...rest.flatMap(([name, className]) => area(add(means((slot) => gil[name][slot] / parts)), className)),
      ...drawSwitches(gil, data.strip),
    ];
  };
  const drawArea = (gil, most, of, className) => {
    const add = stacked(data.waiters);
    const shares = means((slot) => of(slot) / most);
    return [...area(add(shares), className), ...area(add(means((slot) => gil.unseen[slot] / parts)), "unseen")];
  };
  const parallel = (gil) => (slot) => gil.own.reduce((sum, lane) => sum + shareOf(lane, 3)(slot) * lane.threads, 0);
  const drawMarks = (gil) => {
    const last = [-Infinity, -Infinity];
    return gil.holds.flatMap(([, start, duration, isStall]) => {
      const [from, to] = [xAt(start), Math.min(right, xAt(start + duration))];
      if (to < left || from > right || from - last[+isStall] < 3) return [];
      last[+isStall] = from;
      const className = isStall ? "stalled" : "long";
      const shown = Math.max(left, from);
      const mark = make("path", { class: className, d: `M${shown - 3.5} 1h7l-3.5 7z` });
      return [mark, make("rect", { class: className, x: shown, y: 10, width: Math.max(1, to - shown), height: 2 })];
    });
  };

  const pad = (value, width) => String(value).padStart(width, "0");
  const inUnit = (seconds, step) => {
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    if (step >= 30) {
      const whole = Math.round(seconds);
      return whole >= 3600
        ? `${Math.floor(whole / 3600)}:${pad(Math.floor((whole % 3600) / 60), 2)} h`
        : `${Math.floor(whole / 60)}:${pad(whole % 60, 2)} min`;
    }
    if (step < 0.1) return `${Number((seconds * 1e3).toFixed(Math.max(0, digits - 3)))} ms`;
    return `${Number(seconds.toFixed(digits))} s`;
  };
  const drawAxis = (block) => {
    const span = (view.to - view.from) * slotSeconds;
    const power = 10 ** Math.floor(Math.log10(span / 12));
    const clock = [60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
    const step = span / 12 > 20
      ? [30, ...clock].find((value) => value >= span / 12) || 86400
      : [1, 2, 5, 10].map((value) => value * power).find((value) => value >= span / 12);
    const elements = [];
    for (let at = Math.ceil(secondsAt(left) / step - 1e-9) * step; at <= secondsAt(right) + step * 1e-6; at += step) {
      const x = xAt(at);
      elements.push(make("line", { class: "grid", x1: x, x2: x, y1: block.dataset.up, y2: 4 }));
      const text = make("text", { class: "quiet number", x, y: 18, "font-size": 11, "text-anchor": "middle" });
      text.textContent = inUnit(at, step);
      elements.push(text);
    }
    return elements;
  };

  // The picture's blocks, each with what draws it anew and what it was drawn as without scripts.
  const blocks = [...svg.querySelectorAll("g[data-height]")].map((group) => {
    const canvas = group.querySelector(":scope > g.draw");
    if (canvas) canvas.querySelectorAll("title").forEach((title) => title.remove());
    const gil = gils.find(({ first }) => first === Number(group.dataset.gil));
    const lane = lanes[group.dataset.lane];
    const kind = group.getAttribute("class");
    const most = Number(group.dataset.most) || 1;
    const life = group.querySelector(":scope > .life");
    const draw = {
      lane: () => drawLane(lane, life.dataset),
      strip: () => drawStrip(gil),
      waiters: () => drawArea(gil, most, (slot) => gil.waiters[slot] / parts, "s4"),
      parallel: () => [...drawArea(gil, most, parallel(gil), "s3"), ...drawSwitches(gil, data.waiters)],
      marks: () => drawMarks(gil),
      axis: () => drawAxis(group),
    }[kind];
    return {
      group, canvas, kind, lane, gil, draw, life,
      height: Number(group.dataset.height),
      original: canvas ? [...canvas.children] : [],
    };
  });

  const redraw = () => {
    for (const block of blocks) {
      if (!block.draw || block.group.style.display === "none") continue;
      const keeps = isWhole() && block.kind !== "axis";
      block.canvas.replaceChildren(...(keeps ? block.original : block.draw()));
      if (block.life) {
        const { from, to } = block.life.dataset;
        const [start, end] = [from, to].map((at) => Math.min(right, Math.max(left, xAt(Number(at)))));
        block.life.setAttribute("x", start);
        block.life.setAttribute("width", Math.max(0, end - start));
      }
    }
    svg.dataset.from = (view.from * slotSeconds).toFixed(6);
    svg.dataset.to = (view.to * slotSeconds).toFixed(6);
  };
  let isDue = false;
  const show = (from, to) => {
    const width = Math.min(slots, Math.max(Math.min(FEWEST_SLOTS, slots), to - from));
    const start = Math.min(slots - width, Math.max(0, from + (to - from - width) / 2));
    view = { from: start, to: start + width };
    hover.style.display = "none";
    unpin();
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      redraw();
    });
  };
  const zoom = (factor, x = (left + right) / 2) => {
    const at = secondsAt(x) / slotSeconds;
    show(at - (at - view.from) * factor, at + (view.to - at) * factor);
  };
  const pan = (share) => {
    const by = share * (view.to - view.from);
    const allowed = Math.min(slots - view.to, Math.max(-view.from, by));
    show(view.from + allowed, view.to + allowed);
  };

  // Hides lanes whose names do not match; what is below moves up.
  const layOut = () => {
    let top = 0;
    let body = 0;
    for (const block of blocks) {
      if (block.group.style.display === "none") continue;
      block.group.setAttribute("transform", `translate(0 ${top})`);
      block.top = top;
      if (!body && block.draw) body = top;
      if (block.kind === "axis") block.group.dataset.up = body - top;
      top += block.height;
    }
    svg.setAttribute("viewBox", `0 0 ${data.width} ${top}`);
    svg.setAttribute("height", top);
    svg.querySelector(":scope > rect.page").setAttribute("height", top);
    for (const line of [cross, mark]) {
      line.setAttribute("y1", body);
      line.setAttribute("y2", blocks.find(({ kind }) => kind === "axis").top);
    }
  };
  const filter = (wanted) => {
    const words = wanted.trim().toLowerCase();
    for (const { group, lane } of blocks) {
      if (!lane) continue;
      const hit = `${lane.name} ${lane.tid}`.toLowerCase().includes(words);
      group.style.display = hit ? "" : "none";
    }
    unpin();
    layOut();
    redraw();
  };

  // What is at a point of the picture.
  const blockAt = (y) =>
    blocks.find(({ group, top, height }) => group.style.display !== "none" && y >= top && y < top + height);
  const clock = (seconds) => new Date(data.start_ms + seconds * 1000).toISOString().slice(11, 23);
  const percent = (share) => `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
  const describe = (block, x) => {
    const seconds = secondsAt(x);
    const slot = slotAt(x);
    const column = Math.min(columns - 1, Math.max(0, Math.floor(x - left)));
    const words = html("div");
    words.append(html("div", "when", `${seconds.toFixed(4)} s · ${clock(seconds)} UTC`));
    const list = (entries) => {
      for (const [share, name] of entries.filter(([share]) => share >= 0.005).sort(([a], [b]) => b - a)) {
        words.append(html("div", "", `${name} ${percent(share)}`));
      }
    };
    if (block.lane) {
      const { lane } = block;
      words.append(html("div", "who", `${lane.name} (${lane.tid})`));
      list(data.states.map((name, state) => [means(shareOf(lane, state))[column], name]));
      words.append(stackOf(lane, slot));
    } else if (block.kind === "strip") {
      words.append(html("div", "who", "GIL holder"));
      const held = (lane) => means((at) => (shareOf(lane, 0)(at) + shareOf(lane, 1)(at)) * lane.threads)[column];
      const shares = block.gil.own.map((lane) => [held(lane), `${lane.name} (${lane.tid})`]);
      list(shares);
      const holder = block.gil.own[shares.reduce((best, [share], at) => (share > shares[best][0] ? at : best), 0)];
      if (holder && held(holder) > 0.005) words.append(stackOf(holder, slot));
      else words.append(html("div", "", "nobody"));
    } else if (block.kind === "waiters") {
      const mean = means((at) => block.gil.waiters[at] / parts)[column];
      words.append(html("div", "who", `${mean.toFixed(1)} threads waiting`));
      list(block.gil.own.map((lane) => [means(shareOf(lane, 4))[column], `${lane.name} (${lane.tid})`]));
    } else if (block.kind === "parallel") {
      words.append(html("div", "who", `${means(parallel(block.gil))[column].toFixed(1)} threads run Python`));
    } else return null;
    return words;
  };
  const stackOf = (lane, slot) => {
    const list = html("ol", "stack");
    const frames = data.stacks[lane.stack[slot]];
    if (!frames) {
      const mix = data.mixes[lane.mix[slot]];
      list.append(html("li", "", mix.some((share) => share > 0) ? "stack not known" : "not there"));
      return list;
    }
    for (const frame of frames) {
      const [name, file] = data.frames[frame].split("\t");
      const item = html("li");
      item.append(html("b", "", name), html("span", "", file));
      list.append(item);
    }
    if (frames.length === 0) list.append(html("li", "", "no Python code"));
    return list;
  };

  // The cross hair, what it tells, and a moment that stays.
  const cross = make("line", { class: "cross" });
  const mark = make("line", { class: "cross" });
  const stand = (line, x) => {
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    line.style.display = "";
  };
  const selection = make("rect", { class: "selection", y: 0, height: "100%" });
  const panel = (className) => {
    const box = html("div", className);
    const holder = make("foreignObject", { width: 420, height: 320, class: `tools ${className}-place` }, box);
    holder.style.display = "none";
    return [holder, box];
  };
  const [hover, hoverBox] = panel("hover");
  const [pinned, pinnedBox] = panel("pinned");
  const place = (holder, x, y) => {
    const height = Number(svg.getAttribute("height"));
    holder.setAttribute("x", x + 440 > data.width ? x - 432 : x + 12);
    holder.setAttribute("y", Math.max(4, Math.min(y + 12, height - 324)));
    holder.style.display = "";
  };
  const showAt = (x, y) => {
    const block = x >= left && x < right ? blockAt(y) : undefined;
    const words = block && describe(block, x);
    cross.style.display = "none";
    hover.style.display = "none";
    if (!words) return;
    stand(cross, x);
    const frames = [...words.querySelectorAll("li")];
    if (frames.length > WORDS) {
      frames.slice(WORDS).forEach((frame) => frame.remove());
      words.append(html("div", "", `… ${frames.length - WORDS} more: click to see all`));
    }
    hoverBox.replaceChildren(words);
    place(hover, x, y);
  };
  const remember = (seconds, block) => {
    const whom = block.lane ? `&thread=${encodeURIComponent(block.lane.tid)}` : "";
    const hash = `#at=${seconds.toFixed(6)}${whom}&from=${svg.dataset.from}&to=${svg.dataset.to}`;
    try {
      history.replaceState(null, "", hash);
    } catch {
      // A picture inside of another page has no address of its own.
    }
  };
  const pin = (x, block) => {
    const words = describe(block, x);
    if (!words) return;
    const close = html("button", "close", "×");
    close.setAttribute("aria-label", "close");
    close.onclick = unpin;
    pinnedBox.replaceChildren(close, words);
    place(pinned, x, block.top + block.height - 12);
    hover.style.display = "none";
    stand(mark, x);
    remember(secondsAt(x), block);
  };
  const unpin = () => {
    pinned.style.display = "none";
    mark.style.display = "none";
  };
  const restore = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const [at, from, to] = ["at", "from", "to"].map((name) => parseFloat(wanted.get(name)));
    if (to > from) {
      view = { from: Math.max(0, from / slotSeconds), to: Math.min(slots, to / slotSeconds) };
      redraw();
    }
    const block = blocks.find(({ lane, kind }) =>
      wanted.has("thread") ? lane && lane.tid === wanted.get("thread") : kind === "strip");
    if (at >= 0 && at <= data.duration_s && block) pin(xAt(at), block);
  };

  // The tools: buttons and the filter.
  const tools = html("div", "bar");
  const button = (label, title, action) => {
    const element = html("button", "", label);
    element.title = title;
    element.setAttribute("aria-label", title);
    element.onclick = action;
    tools.append(element);
  };
  const field = html("input");
  field.type = "search";
  field.placeholder = "filter threads";
  field.setAttribute("aria-label", "filter threads by name");
  field.oninput = () => filter(field.value);
  tools.append(field);
  button("−", "zoom out (-)", () => zoom(2));
  button("+", "zoom in (+, or drag over the lanes)", () => zoom(0.5));
  button("◂", "earlier (left arrow)", () => pan(-0.25));
  button("▸", "later (right arrow)", () => pan(0.25));
  button("whole", "the whole recording (0)", () => show(0, slots));
  const toolbox = make("foreignObject", { x: data.width - 24 - 372, y: 18, width: 372, height: 30, class: "tools" }, tools);

  // The pointer: drag zooms to what is dragged over, with shift it pans; a click keeps a moment.
  const point = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  let drag = null;
  const inside = ({ x, y }) => x >= left && x < right && blockAt(y)?.draw;
  svg.addEventListener("pointerdown", (event) => {
    if (event.target.closest(".tools") || event.button !== 0) return;
    const at = point(event);
    if (!inside(at)) return;
    drag = { x: at.x, last: event.clientX, pans: event.shiftKey, moved: false };
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (event.target.closest(".pinned-place, .bar")) return;
    const { x, y } = point(event);
    if (!drag) return showAt(x, y);
    drag.moved = drag.moved || Math.abs(x - drag.x) > 4;
    if (drag.pans) {
      pan(-(event.clientX - drag.last) / (columns * svg.getScreenCTM().a));
      drag.last = event.clientX;
    } else if (drag.moved) {
      const end = Math.min(right, Math.max(left, x));
      selection.setAttribute("x", Math.min(drag.x, end));
      selection.setAttribute("width", Math.abs(end - drag.x));
      selection.style.display = "";
      showAt(-1, y);
    }
  });
  svg.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { x, y } = point(event);
    const { x: from, pans, moved } = drag;
    drag = null;
    selection.style.display = "none";
    if (!moved) return pin(Math.min(right - 1, x), blockAt(y));
    if (pans) return undefined;
    const [a, b] = [from, Math.min(right, Math.max(left, x))].sort((one, other) => one - other);
    return show(secondsAt(a) / slotSeconds, secondsAt(b) / slotSeconds);
  });
  svg.addEventListener("pointerleave", () => showAt(-1, -1));
  svg.addEventListener("wheel", (event) => {
    const at = point(event);
    if (!inside(at)) return;
    if (event.ctrlKey || event.metaKey) zoom(2 ** (event.deltaY / 200), at.x);
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX / 800);
    else if (event.shiftKey) pan(event.deltaY / 800);
    else return;
    event.preventDefault();
  }, { passive: false });
  svg.addEventListener("dblclick", (event) => {
    if (!event.target.closest(".tools")) show(0, slots);
  });
  const keys = {
    "+": () => zoom(0.5),
    "=": () => zoom(0.5),
    "-": () => zoom(2),
    0: () => show(0, slots),
    ArrowLeft: () => pan(-0.25),
    ArrowRight: () => pan(0.25),
    Escape: unpin,
    "/": () => field.focus(),
  };
  svg.addEventListener("keydown", (event) => {
    if (event.target === field || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    field.value = "";
    filter("");
    svg.focus();
  });

  const style = make("style");
  style.textContent = `
    svg.gilspy{user-select:none}.pinned{user-select:text}svg.gilspy:focus{outline:none}svg.gilspy:focus-visible{outline:2px solid #0072B2;outline-offset:-2px}
    .cross{stroke:#D64545;pointer-events:none}.selection{fill:#0072B2;fill-opacity:.15;pointer-events:none}
    .hover-place{pointer-events:none}
    .hover,.pinned{font:12px/1.45 Inter,Helvetica,Arial,sans-serif;color:#1F2933;background:#FFF;border:1px solid #9AA5B1;
      border-radius:4px;padding:8px 10px;box-shadow:0 2px 8px rgba(0,0,0,.18);width:max-content;max-width:396px;
      box-sizing:border-box;max-height:316px;overflow:auto;overflow-wrap:anywhere}
    .when{color:#52606D;font-variant-numeric:tabular-nums}.who{font-weight:600}
    .stack{margin:6px 0 0;padding:6px 0 0;border-top:1px solid #CBD2D9;list-style:none;font-size:11px;
      font-family:'DejaVu Sans Mono',Menlo,Consolas,monospace}
    .stack span{color:#52606D;margin-left:1em}
    .close{float:right;border:0;background:none;font-size:16px;color:inherit;cursor:pointer}
    .bar{display:flex;gap:4px;justify-content:flex-end;font:12px Inter,Helvetica,Arial,sans-serif}
    .bar button,.bar input{font:inherit;color:#1F2933;background:#FFF;border:1px solid #9AA5B1;border-radius:4px;
      padding:2px 8px;height:24px;box-sizing:border-box}.bar input{width:150px}.bar button{cursor:pointer}
    @media (prefers-color-scheme:dark){.hover,.pinned,.bar button,.bar input{color:#E4E7EB;background:#1F2730;
      border-color:#52606D}.when,.stack span{color:#B0BAC5}.stack{border-color:#3E4C59}}`;
  for (const element of [cross, mark, selection]) element.style.display = "none";
  svg.append(style, selection, cross, mark, toolbox, pinned, hover);
  svg.setAttribute("tabindex", "0");
  layOut();
  restore();
  window.addEventListener("hashchange", restore);
  redraw();
})();
