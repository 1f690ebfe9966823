// Shows /v1/openapi.json. Every text goes in as text: nothing of the document is run as markup.
"use strict";

const METHODS = ["get", "put", "post", "delete"];
let known = {};

function make(tag, options = {}, ...children) {
  const { text, ...rest } = options;
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  if (text !== undefined) element.append(...marked(text));
  element.append(...children.filter((child) => child));
  return element;
}

// `code` in descriptions.
function marked(text) {
  return String(text).split(/(`[^`]+`)/).filter(Boolean).map((part) => {
    if (!/^`[^`]+`$/.test(part)) return document.createTextNode(part);
    const code = document.createElement("code");
    code.textContent = part.slice(1, -1);
    return code;
  });
}

function nameOf(reference) { return reference.split("/").pop(); }

function resolved(schema) {
  return schema && schema.$ref ? { ...known[nameOf(schema.$ref)], ...without(schema, "$ref") } : schema || {};
}

function without(object, key) {
  return Object.fromEntries(Object.entries(object).filter(([name]) => name !== key));
}

function typeOf(schema) {
  if (schema.$ref) {
    const target = known[nameOf(schema.$ref)] || {};
    return target.enum ? target.enum.join(" | ") : nameOf(schema.$ref);
  }
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `list of ${typeOf(schema.items || {})}`;
  if (schema.type === "object" && schema.additionalProperties) return "mapping";
  return schema.type || "anything";
}

function boundsOf(schema) {
  const one = schema.anyOf ? schema.anyOf.find((each) => each.type && each.type !== "null") || schema : schema;
  const said = [];
  if (one.minimum !== undefined && one.maximum !== undefined) said.push(`${one.minimum} to ${one.maximum}`);
  if (one.minLength && one.maxLength) said.push(`${one.minLength} to ${one.maxLength} characters`);
  else if (one.maxLength) said.push(`at most ${one.maxLength} characters`);
  if (one.maxItems) said.push(`at most ${one.maxItems}`);
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") {
    said.push(`default ${JSON.stringify(schema.default)}`);
  }
  return said.join("; ");
}

function table(columns, rows) {
  const head = make("tr", {}, ...columns.map((name) => make("th", { scope: "col", text: name })));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((cell) =>
    make("td", {}, ...(Array.isArray(cell) ? cell : [cell])))));
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": columns.join(", ") },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function words(text) { const span = make("span"); span.append(...marked(text || "")); return span; }

function fieldRows(schema) {
  const needed = new Set(schema.required || []);
  return Object.entries(schema.properties || {}).map(([name, found]) => {
    const whole = resolved(found);
    const star = needed.has(name) ? make("span", { class: "need", title: "required", text: "*" }) : null;
    const bounds = boundsOf(found);
    return [
      [make("code", { text: name }), star].filter(Boolean),
      make("small", { text: typeOf(found) }),
      [words(found.description || (found.$ref ? "" : whole.description)),
        bounds ? make("div", { class: "hint", text: bounds }) : null].filter(Boolean),
    ];
  });
}

function schemaBlock(schema) {
  const whole = resolved(schema);
  if (!whole.properties) return make("p", {}, make("small", { text: typeOf(schema) }));
  const title = schema.$ref ? nameOf(schema.$ref) : "";
  return make("div", {},
    make("p", {}, make("a", { href: `#schema-${title}` }, make("code", { text: title })), words(` ${whole.description || ""}`)),
    table(["field", "type", "meaning"], fieldRows(whole)));
}

function exampleOf(schema, depth = 0) {
  const whole = resolved(schema);
  if (whole.default !== undefined && whole.default !== null && whole.default !== "") return whole.default;
  if (whole.enum) return whole.enum[0];
  if (whole.anyOf) return exampleOf(whole.anyOf[0], depth);
  if (whole.type === "object" && whole.properties && depth < 3) {
    const needed = whole.required || Object.keys(whole.properties).slice(0, 2);
    return Object.fromEntries(needed.map((name) => [name, exampleOf(whole.properties[name], depth + 1)]));
  }
  if (whole.type === "object") return { "limits.yaml": "version: 1" };
  if (whole.type === "array") return [];
  if (whole.type === "boolean") return true;
  if (whole.type === "number" || whole.type === "integer") return 1767225600;
  return "…";
}

const SAMPLES = { account_id: "acme", organization_id: "acme" };

function curlOf(method, path, operation) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => SAMPLES[name] || `${name.toUpperCase()}`);
  const lines = [`curl -H "Authorization: Bearer $ADMIN_KEY"`];
  if (method !== "get") lines[0] = lines[0].replace("curl", `curl -X ${method.toUpperCase()}`);
  for (const parameter of operation.parameters || []) {
    if (parameter.in === "header" && parameter.required) lines.push(`  -H '${parameter.name}: "ETAG"'`);
  }
  const content = operation.requestBody && operation.requestBody.content;
  if (content) {
    const [type, { schema }] = Object.entries(content)[0];
    lines.push(`  -H 'Content-Type: ${type}'`);
    lines.push(type === "application/json" ? `  -d '${JSON.stringify(exampleOf(schema))}'` : "  --data-binary @accounts.jsonl");
  }
  lines.push(`  ${location.origin}${filled}`);
  return lines.join(" \\\n");
}

function sample(text) {
  const button = make("button", { type: "button", text: "Copy" });
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch { button.textContent = "Select it"; }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  const pre = make("pre", { tabindex: "0" });
  pre.textContent = text;
  return make("div", { class: "sample" }, pre, button);
}

function section(title, ...children) { return make("div", {}, make("h4", { text: title }), ...children); }

function article(method, path, operation) {
  const parts = [];
  if (operation.description) parts.push(make("p", { text: operation.description }));
  const parameters = operation.parameters || [];
  if (parameters.length) {
    parts.push(section("Parameters", table(["name", "in", "type", "meaning"], parameters.map((each) => [
      [make("code", { text: each.name }), each.required ? make("span", { class: "need", title: "required", text: "*" }) : null].filter(Boolean),
      make("small", { text: each.in }),
      make("small", { text: typeOf(each.schema) }),
      [words(each.description), boundsOf(each.schema) ? make("div", { class: "hint", text: boundsOf(each.schema) }) : null].filter(Boolean),
    ]))));
  }
  const body = operation.requestBody && operation.requestBody.content;
  if (body) {
    const [type, { schema }] = Object.entries(body)[0];
    parts.push(section(`Body: ${type}`, schemaBlock(schema)));
  }
  parts.push(section("Example", sample(curlOf(method, path, operation))));
  parts.push(section("Answers", table(["status", "meaning", "body"], Object.entries(operation.responses).map(([status, answer]) => {
    const content = Object.entries(answer.content || {})[0];
    const schema = content && content[1].schema;
    const told = schema && schema.$ref
      ? make("a", { href: `#schema-${nameOf(schema.$ref)}`, text: nameOf(schema.$ref) })
      : make("small", { text: content ? content[0] : "" });
    return [make("code", { text: status }), words(answer.description), told];
  }))));
  const role = operation["x-required-role"];
  const summary = make("summary", {},
    make("span", { class: `method ${method.toUpperCase()}`, text: method.toUpperCase() }),
    make("h3", { text: operation.summary }),
    make("span", { class: `role ${role}`, title: `needs the role ${role}`, text: operation["x-audited"] ? `${role} · audited` : role }),
    make("span", { class: "path", text: path }));
  const details = make("details", {}, summary, make("div", { class: "inside" }, ...parts));
  const found = make("article", { id: operation.operationId }, details);
  found.dataset.text = `${method} ${path} ${operation.operationId} ${operation.summary} ${operation.description || ""} ${role}`.toLowerCase();
  return found;
}

function open(id) {
  const target = id && document.getElementById(id);
  const details = target && target.querySelector("details");
  if (details) details.open = true;
  if (target) target.scrollIntoView();
}

function show(told) {
  known = told.components.schemas;
  document.title = `${told.info.title} ${told.info.version}`;
  document.getElementById("about").replaceChildren(...marked(told.info.description));
  document.getElementById("facts").replaceChildren(
    make("span", { text: `Version ${told.info.version}` }),
    make("span", { text: `OpenAPI ${told.openapi}` }),
    make("a", { href: "/v1/openapi.json", text: "openapi.json" }));
  const operations = document.getElementById("operations");
  const contents = document.getElementById("contents");
  for (const tag of told.tags) {
    const items = [];
    const articles = [];
    for (const [path, methods] of Object.entries(told.paths)) {
      for (const method of METHODS) {
        const operation = methods[method];
        if (!operation || !operation.tags.includes(tag.name)) continue;
        articles.push(article(method, path, operation));
        items.push(make("li", {}, make("a", { href: `#${operation.operationId}`, text: operation.summary })));
      }
    }
    contents.append(make("h2", { text: tag.name }), make("ul", {}, ...items));
    operations.append(make("section", {}, make("h2", { text: tag.name }), ...articles));
  }
  const schemas = document.getElementById("schemas");
  for (const [name, schema] of Object.entries(known)) {
    const inside = make("div", { class: "inside" });
    if (schema.description) inside.append(make("p", { text: schema.description }));
    if (schema.properties) inside.append(table(["field", "type", "meaning"], fieldRows(schema)));
    else if (schema.enum) inside.append(make("p", { text: schema.enum.map((each) => `\`${each}\``).join(", ") }));
    const summary = make("summary", {}, make("span", { class: "method", text: "{ }" }), make("h3", { text: name }));
    schemas.append(make("article", { id: `schema-${name}` }, make("details", {}, summary, inside)));
  }
  schemas.hidden = false;
}

function find(text) {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  let any = false;
  for (const part of document.querySelectorAll("#operations section")) {
    let some = false;
    for (const each of part.querySelectorAll("article")) {
      const fits = wanted.every((word) => each.dataset.text.includes(word));
      each.hidden = !fits;
      some = some || fits;
    }
    part.hidden = !some;
    any = any || some;
  }
  document.getElementById("schemas").hidden = wanted.length > 0;
  document.getElementById("nothing").hidden = any;
}

async function start() {
  try {
    const answer = await fetch("/v1/openapi.json");
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.json());
  } catch (error) {
    document.getElementById("about").textContent = `The document cannot be read (${error.message}). Reload the page.`;
    return;
  }
  document.getElementById("find").addEventListener("input", (event) => find(event.target.value));
  addEventListener("hashchange", () => open(location.hash.slice(1)));
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement.tagName !== "INPUT") {
      event.preventDefault();
      document.getElementById("find").focus();
    }
  });
  open(location.hash.slice(1));
}

start();
