
// What inferno's script leaves out: the keyboard, searches that are no regular expression or find nothing, and
// documents without an address of their own.
(() => {
    "use strict";
    addEventListener("load", () => {
        init();
        const outermost = (a, b) => width(b) - width(a) || (inverted ? row(a) - row(b) : row(b) - row(a));
        Array.from(frames.children).sort(outermost)[0].setAttribute("tabindex", "0");
    });

    // inferno keeps zoom and search in the address, which the frame of a page does not have.
    const replaceState = history.replaceState.bind(history);
    history.replaceState = (...state) => { try { replaceState(...state); } catch { /* nowhere to keep it */ } };

    // What is searched is the name alone, not its time.
    g_to_func = group => g_to_text(group).replace(/ \([^(]*\)$/, "");
    const find = search;
    search = term => {
        try {
            new RegExp(term);
        } catch {
            term = term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
        }
        find(term);
        if (searching) return;
        matchedtxt.classList.remove("hide");
        matchedtxt.firstChild.nodeValue = "Matched: nothing";
    };
    window.searchFor = term => {
        if (searching) search_prompt();
        matchedtxt.firstChild.nodeValue = " ";
        if (term) search(term);
        return matchedtxt.firstChild.nodeValue.trim();
    };

    const number = (group, name) => parseFloat(find_child(group, "rect").getAttribute(name));
    const row = group => number(group, "y");
    const width = group => number(group, "fg:w");
    const start = group => number(group, "fg:x");
    const holds = (outer, inner) =>
        start(outer) <= start(inner) && start(inner) + width(inner) <= start(outer) + width(outer);

    // From one frame to the next in the direction of an arrow: to the caller, the widest callee, or a neighbour.
    function next(group, key) {
        const height = number(group, "height") + 1;
        const visible = Array.from(frames.children).filter(other => !other.classList.contains("hide"));
        const step = { ArrowUp: -height, ArrowDown: height }[key];
        if (step) {
            const there = visible.filter(other => Math.abs(row(other) - row(group) - step) < 2);
            const related = there.filter(other => holds(other, group) || holds(group, other));
            return related.sort((a, b) => width(b) - width(a))[0];
        }
        const beside = visible.filter(other => row(other) === row(group)).sort((a, b) => start(a) - start(b));
        return beside[beside.indexOf(group) + (key === "ArrowLeft" ? -1 : 1)];
    }

    addEventListener("keydown", event => {
        const group = find_group(event.target);
        if (event.key === "Escape") unzoom();
        else if (event.key === "Enter" || event.key === " ") {
            if (!group && event.target.getAttribute("role") !== "button") return;
            event.target.dispatchEvent(new MouseEvent("click", { bubbles: true }));
        } else if (group && event.key.startsWith("Arrow")) {
            const other = next(group, event.key);
            if (other) {
                group.removeAttribute("tabindex");
                other.setAttribute("tabindex", "0");
                other.focus();
            }
        } else return;
        event.preventDefault();
    });
    addEventListener("focusin", event => {
        const group = find_group(event.target);
        details.nodeValue = group ? g_to_text(group) : " ";
    });
})();
