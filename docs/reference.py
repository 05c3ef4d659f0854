"""docs/openapi.json as docs/reference.md, for people.

    python3 docs/reference.py           # writes docs/reference.md
    python3 docs/reference.py --check   # exit 1 if it is not current
"""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "reference.md")
with open(os.path.join(HERE, "openapi.json"), encoding="utf-8") as file:
    DOC = json.load(file)


def resolve(x):
    """The object that a reference leads to, and its name; others as they are, without one."""
    if "$ref" not in x:
        return x, None
    at = DOC
    for part in x["$ref"][2:].split("/"):
        at = at[part]
    return at, x["$ref"].rsplit("/", 1)[1]


def cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ")


def anchor(title):
    """As GitHub makes them: lower case, spaces to dashes, other signs away."""
    return "".join("-" if c == " " else c for c in title.lower() if c.isalnum() or c in " -_")


def kind(schema):
    """A schema in a few words, with links to those that have a name."""
    if "$ref" in schema:
        name = resolve(schema)[1]
        return f"[{name}](#{anchor(name)})"
    if "oneOf" in schema:
        return " or ".join(kind(one) for one in schema["oneOf"])
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(v)}`" for v in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    types = schema.get("type", "any")
    words = []
    for one in types if isinstance(types, list) else [types]:
        if one == "array":
            words.append("array of " + kind(schema.get("items", {})))
        elif one == "object" and isinstance(schema.get("additionalProperties"), dict):
            words.append("object of " + kind(schema["additionalProperties"]))
        else:
            words.append(one)
    return " or ".join(words)


def limits(schema):
    words = []
    for low, high, unit in (("minimum", "maximum", ""), ("minItems", "maxItems", " items"), ("minLength", "maxLength", " characters")):
        if low in schema and high in schema:
            words.append(f"{schema[low]} to {schema[high]}{unit}")
        elif low in schema:
            words.append(f"{schema[low]}{unit} or more")
        elif high in schema:
            words.append(f"at most {schema[high]}{unit}")
    if "pattern" in schema:
        words.append(f"`{schema['pattern']}`")
    if "default" in schema:
        words.append(f"default `{json.dumps(schema['default'])}`")
    return "; ".join(words)


def remark(schema):
    return "; ".join(text for text in (limits(schema), schema.get("description", "")) if text)


def members(schema, out):
    out += ["| member | type | |", "| --- | --- | --- |"]
    required = schema.get("required", [])
    for name, one in schema["properties"].items():
        out.append(f"| `{name}`{' *' if name in required else ''} | {cell(kind(one))} | {cell(remark(one))} |")
        if one.get("type") == "array" and "properties" in one.get("items", {}):
            for inner, two in one["items"]["properties"].items():
                out.append(f"| `{name}[].{inner}`{' *' if inner in one['items'].get('required', []) else ''} | {cell(kind(two))} | {cell(remark(two))} |")
        for inner, two in one.get("properties", {}).items():
            out.append(f"| `{name}.{inner}`{' *' if inner in one.get('required', []) else ''} | {cell(kind(two))} | {cell(remark(two))} |")
    out.append("")


def parameters(operation, out):
    found = [resolve(p)[0] for p in operation.get("parameters", [])]
    if not found:
        return
    out += ["| parameter | in | type | |", "| --- | --- | --- | --- |"]
    for p in found:
        text = "; ".join(t for t in (limits(p["schema"]), p.get("description", p["schema"].get("description", ""))) if t)
        out.append(f"| `{p['name']}`{' *' if p.get('required') else ''} | {p['in']} | {cell(kind(p['schema']))} | {cell(text)} |")
    out.append("")


def responses(operation, out):
    out += ["| status | answer | headers | |", "| --- | --- | --- | --- |"]
    for status, r in operation["responses"].items():
        r = resolve(r)[0]
        answers = " or ".join(f"{kind(c['schema'])} as {media}" if media != "application/json" else kind(c["schema"]) for media, c in r.get("content", {}).items())
        out.append(f"| {status} | {cell(answers)} | {', '.join(f'`{h}`' for h in r.get('headers', {}))} | {cell(r['description'])} |")
    out.append("")


def security(operation):
    schemes = DOC["components"]["securitySchemes"]
    return " or ".join(sorted({schemes[name]["description"] for one in operation.get("security", []) for name in one if name != "keyHeader"}))


def operation_text(method, path, listeners, operation, out):
    out += [f"### {method.upper()} {path}", "", operation["summary"] + ("" if operation["summary"].endswith("?") else "."), ""]
    if operation.get("description"):
        out += [operation["description"], ""]
    token = security(operation)
    out += ["Listener: " + ", ".join(listeners) + (f". Bearer token: {token}." if token else ". No token."), ""]
    parameters(operation, out)
    if "requestBody" in operation:
        body = operation["requestBody"]
        out += [f"Body{'' if body.get('required') else ' (optional)'}: " + ", ".join(kind(c["schema"]) for c in body["content"].values()) + ".", ""]
    responses(operation, out)


def render():
    out = [f"# {DOC['info']['title']} {DOC['info']['version']}: reference of the HTTP API", "",
           "Made from [openapi.json](openapi.json) by `python3 docs/reference.py`; a test compares them. [api.md](api.md) explains, with examples.", "",
           DOC["info"]["description"], "", "A `*` marks what must be there.", ""]
    groups = {tag["name"]: [] for tag in DOC["tags"]}
    for path, operations in DOC["paths"].items():
        servers = operations.get("servers", DOC["servers"])
        for method, operation in operations.items():
            if method != "servers":
                groups[operation["tags"][0]].append((method, path, [s["description"].removesuffix(" listener") for s in servers], operation))
    out += ["| | |", "| --- | --- |"]
    for group in groups.values():
        out += [f"| [{m.upper()} {p}](#{anchor(f'{m} {p}')}) | {cell(o['summary'])} |" for m, p, _, o in group]
    out.append("")
    for name, group in groups.items():
        out += [f"## {name.capitalize()}", ""]
        for one in group:
            operation_text(*one, out)
    out += ["## Schemas", ""]
    for name, schema in DOC["components"]["schemas"].items():
        out += [f"### {name}", ""]
        words = remark(schema)
        if "properties" not in schema:
            words = "; ".join(text for text in (kind(schema), words) if text)
        if words:
            out += [words[0].upper() + words[1:] + ".", ""]
        if "properties" in schema:
            members(schema, out)
    return "\n".join(out).rstrip("\n") + "\n"


if __name__ == "__main__":
    text = render()
    if sys.argv[1:] == ["--check"]:
        with open(OUT, encoding="utf-8") as f:
            if f.read() != text:
                sys.exit("docs/reference.md is not made from docs/openapi.json: run python3 docs/reference.py")
    else:
        with open(OUT, "w", encoding="utf-8") as f:
            f.write(text)
