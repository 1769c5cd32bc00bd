"""Replies in the form of JSON schemas, checked by an independent validator.

    schemas.py [--walk PROGRAM] [--tokenizer FILE]     random replies of grammar_walk, which is built
                                                       with the tests, over SmolLM2's vocabulary
    schemas.py --server URL --model NAME [--key KEY]   replies of a running `marco serve`
    schemas.py --list                                  print the schemas, one a line

About 280 schemas, written here or made from a fixed seed, each with five seeds. Every reply that
ends by itself must be valid, by Python's jsonschema with its format checker; of the schemas that
bound the length of what they accept, 95% of the replies must end within 1,024 tokens. Exits 1 where
that does not hold."""

import argparse
import concurrent.futures
import json
import os
import random
import re
import subprocess
import tempfile
import urllib.error
import urllib.request

import jsonschema

import results

SEEDS = 5
TOKENS = 1024
DRAFT = jsonschema.Draft202012Validator


# ---- written ones ------------------------------------------------------------------------------

def obj(properties, required=None, more=False, **keywords):
    """A strict object; `required` None: all properties."""
    return {"type": "object", "properties": properties,
            "required": list(properties) if required is None else required,
            "additionalProperties": more, **keywords}


STRING = {"type": "string", "maxLength": 40}
INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}
BOOLEAN = {"type": "boolean"}
NULL = {"type": "null"}

FORMATS = ["date", "time", "date-time", "duration", "uuid", "email", "hostname", "ipv4", "ipv6",
           "uri", "uri-reference", "json-pointer"]

PATTERNS = [r"^[A-Z]{2,3}-\d+$", r"^\d{3}-\d{4}$", r"foo", r"^a|b$", r"^(?:red|green|blue)$",
            r"^\w+@\w+\.(com|org)$", r"^[^\s\"]+$", r"^\S{1,30}$", r"^.{3,12}$", r"^[\u0600-\u06FF]+$",
            r"^\u{1F600}+$", r"^(a|bc)*d?$", r"^\$\d{1,6}\.\d{2}$", r"^#[0-9a-fA-F]{6}$",
            r"^(\d{1,3}\.){3}\d{1,3}$", r"^[\\/\"]{1,5}$", r"^\n\t?$", r"[0-9]", r"^$", r"^x",
            r"x$", r"^[a-z0-9]+(-[a-z0-9]+)*$", r"^\W{1,4}$", r"^[^\W]{1,9}$", r"^\D{2,5}$",
            r"^(?<year>\d{4})-(?<month>0[1-9]|1[0-2])$", r"^[\w.+-]{1,20}$", r"^.*$"]


def written():
    """(schema, bounded) pairs."""
    yield obj({"name": STRING, "age": {"type": "integer", "minimum": 0, "maximum": 150}}), True
    yield obj({}), True
    yield {"type": "object"}, False
    yield True, False
    yield {}, False
    yield {"type": "array"}, False
    for schema in (STRING, INTEGER, NUMBER, BOOLEAN, NULL):
        yield schema, True
        yield obj({"x": schema, "y": schema}), True
    yield {"type": ["string", "null"], "maxLength": 5}, True
    yield {"type": ["integer", "boolean", "array"], "items": BOOLEAN, "maxItems": 3}, True
    yield {"enum": ["a", 1, 1.5, -2e300, None, True, [1, {"b": "\u00e9\n\"\\"}], {"k": []}]}, True
    yield {"const": {"a": [1, 2, {"b": None}], "\u00fc\"": ""}}, True
    yield {"enum": ["one", "two", 3], "type": "string"}, True
    yield {"type": "string", "enum": ["aa", "b", "cccc"], "minLength": 2, "pattern": "^[ac]"}, True
    for name in FORMATS:
        yield obj({"value": {"type": "string", "format": name}}), name not in ("uri", "email")
    yield {"type": "string", "format": "date", "pattern": "^20"}, True
    yield {"type": "string", "format": "uuid", "minLength": 36, "maxLength": 36}, True
    for pattern in PATTERNS:
        yield {"type": "string", "pattern": pattern, "maxLength": 30}, True
        yield obj({"p": {"type": "string", "pattern": pattern}}), False
    for low, high in ((0, 1), (0, 0), (-5, 5), (10, 1000), (-1000000, -17), (1, 9999999999), (3, 3),
                      (-1, 0), (99, 101), (0.5, 0.75), (-0.001, 0.001), (1e-7, 2e-7), (-2.5, -1.25),
                      (0.1, 1e6)):
        yield {"type": "number", "minimum": low, "maximum": high}, True
        if int(high) >= low and high >= int(high):
            yield {"type": "integer", "minimum": low, "maximum": high}, True
        if low != high:
            yield {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high}, True
    yield {"type": "integer", "minimum": 9007199254740993, "maximum": 9223372036854775807}, True
    yield {"type": "number", "minimum": 0}, True
    yield {"type": "number", "exclusiveMaximum": 0}, True
    yield {"type": "integer", "exclusiveMinimum": 0}, True
    yield {"type": "integer", "maximum": -3}, True
    for multiple in (2, 5, 7, 10, 60, 365):
        yield {"type": "integer", "multipleOf": multiple, "minimum": -1000, "maximum": 5000}, True
    yield {"type": "number", "multipleOf": 25}, True
    # Objects.
    yield {"type": "object", "additionalProperties": INTEGER}, False
    yield {"type": "object", "additionalProperties": STRING, "maxProperties": 3,
           "propertyNames": {"pattern": "^[a-z_]+"}}, False
    yield {"type": "object", "additionalProperties": INTEGER, "minProperties": 2,
           "propertyNames": {"pattern": "^[a-c]$"}}, True
    yield {"type": "object", "additionalProperties": STRING, "maxProperties": 1,
           "propertyNames": {"pattern": "^[a-z]{1,8}$"}}, True
    yield obj({"a": INTEGER, "b": STRING}, required=["b"]), True
    yield obj({"a": INTEGER, "b": STRING, "c": NULL, "d": BOOLEAN}, required=[]), True
    yield obj({"a": INTEGER, "b": STRING, "c": NULL}, required=[], minProperties=2), True
    yield obj({"a": INTEGER, "b": INTEGER, "c": INTEGER}, required=["c"], maxProperties=2), True
    yield {"properties": {"a": INTEGER, "ab": STRING, "abc": BOOLEAN}, "required": ["ab", "z"],
           "type": "object", "additionalProperties": {"enum": [7]}, "maxProperties": 6}, False
    yield {"type": "object", "patternProperties": {"^i_": INTEGER, "^s_": STRING},
           "properties": {"i_x": {"minimum": 3, "maximum": 8}}, "additionalProperties": False,
           "required": ["i_x", "s_y"]}, False
    yield {"type": "object", "properties": {"never": False, "x": INTEGER}, "required": ["x"],
           "additionalProperties": False}, True
    yield obj({"\u4f60\u597d": INTEGER, "a\"b\\c\n": BOOLEAN, "": NULL}), True
    yield obj({f"property_{i}": INTEGER for i in range(30)}, required=["property_7"]), True
    yield obj({"a": obj({"b": obj({"c": obj({"d": {"enum": [1, 2]}})})})}), True
    # Arrays.
    yield {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 4}, True
    yield {"type": "array", "items": {"enum": ["x"]}, "minItems": 3}, False
    yield {"type": "array", "prefixItems": [INTEGER, STRING], "items": False}, True
    yield {"type": "array", "prefixItems": [INTEGER, STRING], "items": BOOLEAN, "minItems": 2,
           "maxItems": 5}, True
    yield {"type": "array", "maxItems": 0}, True
    yield {"type": "array", "items": {"type": "array", "items": NULL, "maxItems": 2},
           "maxItems": 3}, True
    # References and alternatives.
    yield {"$ref": "#/$defs/node", "$defs": {"node": obj({
        "value": INTEGER, "next": {"anyOf": [{"$ref": "#/$defs/node"}, NULL]}})}}, False
    yield {"$defs": {"tree": {"type": "object", "properties": {
        "label": {"enum": ["x", "y"]},
        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}},
        "required": ["label", "children"], "additionalProperties": False}},
        "$ref": "#/$defs/tree"}, False
    yield obj({"self": {"anyOf": [{"$ref": "#"}, NULL]}}), False
    yield {"definitions": {"a/b~c": {"type": "string", "maxLength": 3}},
           **obj({"x": {"$ref": "#/definitions/a~1b~0c"}, "y": {"$ref": "#/properties/x"}})}, True
    shapes = [obj({"kind": {"const": "circle"}, "radius": NUMBER}),
              obj({"kind": {"const": "square"}, "side": NUMBER}),
              obj({"kind": {"const": "text"}, "text": STRING})]
    yield {"anyOf": shapes}, True
    yield {"oneOf": shapes}, True
    yield {"type": "array", "items": {"anyOf": shapes}, "maxItems": 3}, True
    yield {"oneOf": [{"type": "string", "maxLength": 4}, INTEGER, NULL]}, True
    yield {"oneOf": [{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 6}]}, True
    yield {"oneOf": [{"type": "string", "pattern": "^a"}, {"enum": ["b", "c"]}]}, False
    yield {"anyOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}],
           "properties": {"a": INTEGER, "b": INTEGER}, "additionalProperties": False}, True
    yield {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"b": STRING}, "required": ["b"]}],
           "$defs": {"base": {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}}}, False
    yield {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 7}, {"multipleOf": 2}]}, True
    yield {"allOf": [{"type": ["string", "integer"]}, {"type": ["integer", "null"]}]}, True
    yield {"allOf": [obj({"a": {"anyOf": [INTEGER, STRING]}}), {"properties": {"a": {"minLength": 2}}}]}, True
    yield {"title": "t", "description": "d", "$schema": "https://json-schema.org/draft/2020-12/schema",
           "$id": "https://example.com/s", "default": {}, "examples": [1], "$comment": "c",
           "deprecated": False, "readOnly": True, **obj({"x": {**INTEGER, "title": "X"}})}, True
    # As programs write them.
    yield obj({"steps": {"type": "array", "maxItems": 4, "items": obj({
        "explanation": STRING, "output": STRING})}, "final_answer": STRING}), True
    yield obj({"ui": {"$ref": "#/$defs/ui"}}, **{"$defs": {"ui": obj({
        "type": {"enum": ["div", "button"]}, "label": STRING,
        "children": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/ui"}},
        "attributes": {"type": "array", "maxItems": 2,
                       "items": obj({"name": STRING, "value": STRING})}})}}), False
    yield obj({"city": STRING, "unit": {"type": "string", "enum": ["c", "f"]},
               "when": {"type": ["string", "null"], "format": "date"},
               "days": {"type": "integer", "minimum": 1, "maximum": 14}}), True
    yield obj({"invoice": {"type": "string", "pattern": "^INV-\\d{6}$"}, "lines": {
        "type": "array", "minItems": 1, "maxItems": 5, "items": obj({
            "sku": {"type": "string", "minLength": 3, "maxLength": 10},
            "quantity": {"type": "integer", "minimum": 1, "maximum": 99},
            "price": {"type": "number", "minimum": 0, "maximum": 10000}})},
        "paid": BOOLEAN}), True


# ---- made ones ---------------------------------------------------------------------------------

def made(rng, depth):
    """A random schema whose documents are bounded."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "pattern", "format"]
    if depth > 0:
        kinds += ["object", "object", "object", "array", "array", "anyOf", "optional"]
    kind = rng.choice(kinds)
    if kind == "string":
        low = rng.randrange(4)
        return {"type": "string", "minLength": low, "maxLength": low + rng.randrange(30)}
    if kind in ("integer", "number"):
        schema = {"type": kind}
        if rng.random() < 0.7:
            scale = 10 ** rng.randrange(6)
            low = rng.randrange(-2 * scale, scale)
            high = low + 1 + rng.randrange(3 * scale)
            if kind == "number" and rng.random() < 0.5:
                low, high = low / 8, high / 8
            open_ = rng.random() < 0.3 and high - low > 1
            schema["exclusiveMinimum" if open_ else "minimum"] = low
            if rng.random() < 0.8:
                schema["exclusiveMaximum" if open_ and high - low > 2 else "maximum"] = high
        return schema
    if kind in ("boolean", "null"):
        return {"type": kind}
    if kind == "enum":
        values = ["red", "green", "blue", 0, 1, -7, 2.5, None, True, False, "", "re", [], {"a": 1}]
        return {"enum": rng.sample(values, rng.randrange(1, 6))}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(PATTERNS[:5] + PATTERNS[12:16]),
                "maxLength": 40}
    if kind == "format":
        return {"type": "string", "format": rng.choice(FORMATS[:5] + FORMATS[6:9])}
    if kind == "array":
        low = rng.randrange(3)
        return {"type": "array", "items": made(rng, depth - 1), "minItems": low,
                "maxItems": low + rng.randrange(3)}
    if kind == "anyOf":
        return {"anyOf": [made(rng, depth - 1) for _ in range(rng.randrange(2, 4))]}
    names = rng.sample(["id", "name", "names", "value", "type", "x", "x1", "list", "data item",
                        "\u00e9t\u00e9", "a/b", "q\"q"], rng.randrange(1, 6))
    properties = {name: made(rng, depth - 1) for name in names}
    required = names if kind == "object" else rng.sample(names, rng.randrange(len(names) + 1))
    return obj(properties, required)


def schemas():
    """All of them: (schema, bounded)."""
    rng = random.Random(20261122)
    return list(written()) + [(made(rng, 1 + i % 3), True) for i in range(100)]


# ---- replies -----------------------------------------------------------------------------------

def walk(program, tokenizer, all_schemas):
    """Yields (index, seed, finish, text)."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as lines:
        for schema, _ in all_schemas:
            lines.write(json.dumps(schema) + "\n")
        lines.flush()
        run = subprocess.run([program, tokenizer, lines.name, str(SEEDS), str(TOKENS)],
                             stdout=subprocess.PIPE, check=True, encoding="utf-8")
    for line in run.stdout.splitlines():
        reply = json.loads(line)
        yield reply["schema"], reply["seed"], reply["finish"], reply.get("text", reply.get("error"))


def ask(url, model, key, index, schema, seed):
    """One reply of a server, in the same form."""
    body = {"model": model, "seed": seed, "temperature": 1, "max_tokens": TOKENS,
            "messages": [{"role": "user", "content": "Give me an example."}],
            "response_format": {"type": "json_schema", "json_schema": {
                "name": "example", "strict": True, "schema": schema}}}
    request = urllib.request.Request(url.rstrip("/") + "/v1/chat/completions",
                                     json.dumps(body).encode(), {"Content-Type": "application/json"})
    if key:
        request.add_header("Authorization", "Bearer " + key)
    try:
        with urllib.request.urlopen(request) as response:
            choice = json.load(response)["choices"][0]
            return index, seed, choice["finish_reason"], choice["message"]["content"]
    except urllib.error.HTTPError as problem:
        return index, seed, "refused", problem.read().decode("utf-8", "replace")


def serve(arguments, all_schemas):
    """Yields what the server replies, eight requests at a time."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(ask, arguments.server, arguments.model, arguments.key, i, schema, seed)
                for i, (schema, _) in enumerate(all_schemas) for seed in range(1, SEEDS + 1)]
        for job in jobs:
            yield job.result()


def in_python(schema):
    """The schema with its patterns spelled as Python's re wants them."""
    if isinstance(schema, list):
        return [in_python(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: in_python(value) for key, value in schema.items()}
    if isinstance(out.get("pattern"), str):
        pattern = re.sub(r"\\u\{(\w+)\}", lambda m: chr(int(m[1], 16)), out["pattern"])
        out["pattern"] = re.sub(r"\(\?<(\w)", r"(?P<\1", pattern)
    return out


def problem_with(schema, text):
    """Why the text is no valid document, None where it is one."""
    def pairs(items):
        names = [name for name, _ in items]
        if len(set(names)) < len(names):
            raise ValueError("the same name twice")
        return dict(items)
    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except ValueError as problem:
        return str(problem)
    checker = DRAFT(in_python(schema), format_checker=DRAFT.FORMAT_CHECKER)
    for error in checker.iter_errors(value):
        return error.message[:200]
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walk", default=os.path.join(
        os.path.dirname(results.MARCO), "tests", "interop", "grammar_walk"))
    parser.add_argument("--tokenizer")
    parser.add_argument("--server")
    parser.add_argument("--model", default="")
    parser.add_argument("--key")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    all_schemas = schemas()
    if arguments.list:
        for schema, bounded in all_schemas:
            print(json.dumps({"schema": schema, "bounded": bounded}))
        return
    replies = (serve(arguments, all_schemas) if arguments.server
               else walk(arguments.walk, arguments.tokenizer or results.parent(), all_schemas))
    total = stopped = bad = refused = bounded = within = 0
    for index, seed, finish, text in replies:
        schema, is_bounded = all_schemas[index]
        total += 1
        bounded += is_bounded
        if finish == "stop":
            stopped += 1
            within += is_bounded
            problem = problem_with(schema, text)
            if problem:
                bad += 1
                print(f"schema {index}, seed {seed}: {problem}\n  {json.dumps(schema)[:600]}\n"
                      f"  {text[:600]}")
        elif finish != "length":
            refused += 1
            print(f"schema {index}, seed {seed}: {finish}: {text}\n  {json.dumps(schema)[:600]}")
        elif is_bounded:
            print(f"schema {index}, seed {seed}: not within {TOKENS} tokens\n"
                  f"  {json.dumps(schema)[:300]}")
    share = within / bounded if bounded else 0
    results.row("replies in the form of JSON schemas, by jsonschema",
                f">= 200 schemas of {SEEDS} replies each, all taken, every whole reply valid",
                f"{len(all_schemas)} schemas, {total} replies, {refused} refused, {stopped} whole, "
                f"of which {bad} not valid",
                len(all_schemas) >= 200 and total == SEEDS * len(all_schemas) and
                bad == 0 and refused == 0)
    results.row("replies of schemas that bound their length",
                f">= 95% whole within {TOKENS} tokens",
                f"{within} of {bounded} ({100 * share:.1f}%)", share >= 0.95)
    results.finish()


if __name__ == "__main__":
    main()
