// The session page, live: pieces come as data and are built node by node. No text ever becomes markup here.
"use strict";

(() => {
  const TAGS = new Set(("a article aside b button code dd details div dl dt footer form h1 h2 h3 header i input label li main nav ol " +
    "option p pre section select small span strong summary table tbody td textarea th thead time tr ul").split(" "));
  const main = document.getElementById("main");
  const toldAt = document.getElementById("told");

  const build = (data) => {
    if (typeof data === "string") return document.createTextNode(data);
    const [name, attributes, children] = data;
    if (!TAGS.has(name)) throw new Error(`no such piece: ${name}`);
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (/^(on|style$|src)/.test(key) || (/^(href|action)$/.test(key) && !/^(https?:\/\/|\/(?!\/)|[?#])/.test(value))) continue;
      node.setAttribute(key, value);
    }
    for (const child of children) node.append(build(child));
    return node;
  };

  const localTimes = (root) => {
    for (const node of root.querySelectorAll("time[datetime]")) {
      const at = new Date(node.dateTime);
      if (!isNaN(at)) {
        node.title = node.textContent;
        node.textContent = at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
      }
    }
  };

  // whoever is at the end stays there, whoever reads above is left alone
  const keepingPlace = (work) => {
    const page = document.scrollingElement;
    const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < 80 && page.scrollTop > 0;
    work();
    if (atEnd) page.scrollTop = page.scrollHeight;
  };

  // What a person has typed, chosen or opened stays when a piece is drawn anew - in the same form. Another form has fields of the
  // same names: what was meant for one call must never be sent for another.
  const FIELDS = "textarea[name], input[name]:not([type=hidden]), select[name]";
  const within = (root, what) => [...(root.matches(what) ? [root] : []), ...root.querySelectorAll(what)];
  const sameForm = (form, root) => within(root, "form").find((other) => other.getAttribute("action") === form.getAttribute("action"));
  const keepTyped = (old, fresh) => {
    for (const form of within(old, "form")) {
      const now = sameForm(form, fresh);
      if (!now) continue;
      for (const field of form.querySelectorAll(FIELDS)) {
        const radio = field.type === "radio";
        const same = [...now.querySelectorAll(FIELDS)].find((other) => other.name === field.name && (!radio || other.value === field.value));
        if (!same) continue;
        if (radio || field.type === "checkbox") same.checked = field.checked;
        else if (field.tagName === "SELECT" || field.value !== field.defaultValue) same.value = field.value;
      }
      keepOpen(form, now);
    }
    if (!old.matches("form") && !old.querySelector("form")) keepOpen(old, fresh);
  };
  const keepOpen = (old, fresh) => {
    const after = within(fresh, "details");
    within(old, "details").forEach((one, place) => { if (one.open && after[place]) after[place].open = true; });
  };

  // a form that takes the place of another one must not be answered by a click that was meant for that one
  const holdNew = (old, fresh) => {
    for (const form of within(fresh, "form").filter((one) => !sameForm(one, old))) {
      const buttons = [...form.querySelectorAll("button:enabled")];
      buttons.forEach((one) => { one.disabled = true; });
      setTimeout(() => buttons.forEach((one) => { one.disabled = false; }), 700);
    }
  };

  const drawn = new Map();

  const put = (place, data, parent) => {
    const text = JSON.stringify(data);
    if (drawn.get(place) === text && document.getElementById(place) !== null) return;
    drawn.set(place, text);
    const fresh = build(data);
    localTimes(fresh);
    const old = document.getElementById(place);
    if (old === null) {
      parent.append(fresh);
      return;
    }
    if (old.isEqualNode(fresh)) return;
    keepTyped(old, fresh);
    holdNew(old, fresh);
    const at = old.contains(document.activeElement) ? document.activeElement : null;
    old.replaceWith(fresh);
    const form = at && at.name && at.form && sameForm(at.form, fresh);
    const again = form && [...form.querySelectorAll("[name]")].find((field) => field.name === at.name);
    if (again) {
      again.focus();
      if (at.selectionStart != null) again.setSelectionRange(at.selectionStart, at.selectionEnd);
    }
  };

  const tell = (text, wrong) => {
    toldAt.textContent = text.slice(0, 1).toUpperCase() + text.slice(1);
    toldAt.className = wrong ? "wrong" : "";
    toldAt.hidden = false;
    clearTimeout(tell.timer);
    tell.timer = setTimeout(() => { toldAt.hidden = true; }, wrong ? 12000 : 5000);
  };

  const live = document.getElementById("live");
  let liveTurn = 0;
  const showLive = ({ turn, at, text }) => {
    const body = live.querySelector(".text");
    if (at === 0 || turn !== liveTurn) body.textContent = "";
    liveTurn = turn;
    body.append(document.createTextNode(text));
    live.querySelector("h3 span").textContent = `Turn ${turn}, Claude writes`;
    live.hidden = body.textContent === "";
  };

  let seq = main.dataset.seq;
  const follow = () => {
    const items = document.getElementById("items");
    const source = new EventSource(`/sessions/${encodeURIComponent(main.dataset.session)}/stream?after=${seq}`);
    const on = (kind, work) => source.addEventListener(kind, (event) => {
      keepingPlace(() => work(JSON.parse(event.data)));
      seq = event.lastEventId || seq;
    });
    on("items", (pieces) => { for (const [place, data] of pieces) put(place, data, items); });
    on("part", ([place, data]) => put(place, data, main));
    on("live", showLive);
    on("end", () => {
      source.close();
      main.dataset.over = "yes";
    });
    source.addEventListener("open", () => document.body.classList.remove("away"));
    source.addEventListener("error", () => {
      document.body.classList.add("away");
      // the browser tries again by itself unless it was told no: too many watch, or the gateway is being started
      if (source.readyState === EventSource.CLOSED && main.dataset.over !== "yes") setTimeout(follow, 5000);
    });
  };

  const send = async (form, button) => {
    const fields = new URLSearchParams(new FormData(form));
    if (button && button.name) fields.set(button.name, button.value);
    const buttons = [...form.querySelectorAll("button:enabled")];
    buttons.forEach((one) => { one.disabled = true; });
    try {
      const answer = await fetch(form.getAttribute("action"), { method: "POST", body: fields, headers: { Accept: "application/json" } });
      const said = await answer.json();
      if (!answer.ok) {
        tell(said.error.message, true);
        return;
      }
      tell(said.told);
      form.querySelectorAll("textarea[name=text]").forEach((one) => { one.value = ""; });
      form.querySelectorAll("details[open]").forEach((one) => { one.open = false; });
      if (button && button.value === "resume") location.reload();
    } catch {
      tell("The gateway cannot be reached. Nothing is known to have been sent; try it again.", true);
    } finally {
      buttons.forEach((one) => { one.disabled = false; });
    }
  };

  document.addEventListener("submit", (event) => {
    if (event.target.dataset.act === undefined) return;
    event.preventDefault();
    send(event.target, event.submitter);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.target.id !== "text") return;
    event.target.form.requestSubmit(event.target.form.querySelector("button.main"));
  });
  document.addEventListener("change", (event) => {
    if (event.target.form && event.target.form.classList.contains("filters")) event.target.form.requestSubmit();
  });

  document.documentElement.classList.add("scripted");
  localTimes(document);
  // a link from elsewhere comes without the cookie, which only our own pages send: look once more from here
  if (main.dataset.signin && location.pathname.startsWith("/sessions")) {
    fetch("/sessions", { method: "HEAD" }).then((answer) => { if (answer.ok) location.replace(location.href); }, () => {});
  }
  if (main.dataset.session && main.dataset.over !== "yes") follow();
})();
