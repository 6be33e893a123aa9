// The table of published cells: search, choices that the address keeps, pages, copies of commands.
(() => {
  const table = document.getElementById("cells-table");
  const form = document.getElementById("cells-filters");
  if (!table || !form || !window.ITables) return;
  const $ = window.ITables.jQuery;
  const selects = [...form.querySelectorAll("select")];
  const asked = new URLSearchParams(location.search);
  const rows = [...table.tBodies[0].rows];
  const wanted = rows.find((row) => "#" + row.id === decodeURIComponent(location.hash));

  selects.forEach((select) => {
    const value = asked.get(select.name);
    if (value && [...select.options].some((option) => option.value === value)) select.value = value;
  });

  const chosen = (row) => selects.every((s) => !s.value || row.dataset[s.name] === s.value);

  // Lines of a cell are one line of the file; "copy" buttons and row links are not part of it.
  const words = (cell) => {
    const clone = cell.cloneNode(true);
    clone.querySelectorAll("button, .here, [aria-hidden]").forEach((e) => e.remove());
    clone.querySelectorAll("small, code").forEach((e) => e.prepend("; "));
    return clone.textContent.trim().replace(/\s+/g, " ").replace(/^; /, "").replace(/ ?; /g, "; ");
  };

  $.fn.dataTable.ext.search.push((settings, data, index) => chosen(rows[index]));
  const cells = $(table).DataTable({
    pageLength: 25,
    lengthMenu: [[25, 100, -1], [25, 100, "all"]],
    order: [],
    autoWidth: false,
    search: { search: asked.get("search") || "" },
    orderClasses: false,
    columnDefs: [{ targets: [4, 5, 6], type: "num" }, { targets: "_all", type: "html" }],
    layout: {
      topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: "paging",
    },
    language: { search: "Search", lengthMenu: "Rows a page _MENU_", info: "Rows _START_ to _END_ of _TOTAL_", infoFiltered: "(of _MAX_)", infoEmpty: "No row" },
  });
  // What scrolls is the table alone, and the keyboard reaches it.
  const box = document.querySelector(".cells-box");
  const scrolled = table.closest(".dt-layout-row");
  ["tabindex", "role", "aria-label"].forEach((name) => {
    scrolled.setAttribute(name, box.getAttribute(name));
    box.removeAttribute(name);
  });

  const keep = () => {
    const kept = new URLSearchParams();
    selects.forEach((s) => s.value && kept.set(s.name, s.value));
    if (cells.search()) kept.set("search", cells.search());
    const query = kept.toString() ? "?" + kept : "";
    try {
      history.replaceState(null, "", location.pathname + query + location.hash);
    } catch { /* a browser that keeps the address of files as it is */ }
  };

  const copyable = () => table.querySelectorAll("code.command:not(.copyable)").forEach((code) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "copy", textContent: "copy" });
    button.setAttribute("aria-label", "Copy the command " + code.textContent);
    button.onclick = async () => {
      let done = true;
      try { await navigator.clipboard.writeText(code.textContent); } catch { done = false; }
      if (!done) getSelection().selectAllChildren(code);
      button.textContent = done ? "copied" : "marked";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    };
    code.classList.add("copyable");
    code.after(button);
  });

  const saveFiltered = () => {
    const heads = [...table.tHead.rows[0].cells].map(words);
    const found = cells.rows({ search: "applied" }).nodes().toArray();
    const lines = [["Row", ...heads], ...found.map((row) => [row.id, ...[...row.cells].map(words)])];
    const text = lines.map((l) => l.map((v) => `"${v.replaceAll('"', '""')}"`).join(",")).join("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "text/csv" }));
    link.download = "published_cells_filtered.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  };

  const save = document.createElement("button");
  Object.assign(save, { type: "button", textContent: "Save these rows as CSV", onclick: saveFiltered });
  save.id = "save-rows";
  form.querySelector(".cells-buttons").append(save);
  form.hidden = false;
  form.onsubmit = (event) => event.preventDefault();
  form.addEventListener("change", () => cells.draw());
  form.addEventListener("reset", () => setTimeout(() => cells.search("").order([]).draw()));
  cells.on("draw", () => { keep(); copyable(); });
  copyable();

  const show = (row) => {
    const place = cells.rows({ search: "applied" }).nodes().toArray().indexOf(row);
    if (place < 0) return;
    cells.page(Math.floor(place / Math.max(cells.page.len(), 1))).draw("page");
    table.querySelectorAll("tr.wanted").forEach((old) => old.classList.remove("wanted"));
    row.classList.add("wanted");
    row.scrollIntoView({ block: "center" });
  };
  if (wanted) show(wanted);
  addEventListener("hashchange", () => {
    const row = rows.find((r) => "#" + r.id === decodeURIComponent(location.hash));
    if (row) show(row);
  });
})();
