"""A WSGI application that takes orders as JSON, checks them against a schema and scores them.

Injected: the check walks through the schema for each order, in Python: references are looked up, kinds are dispatched by name, and
each value comes with the path to it. The twin writes the schema as one Python function when it starts, as compilers of schemas do,
and calls that; it checks as much. healthy-bulk: orders of a partner who signs them, whose signature is checked instead (native).
"""

import hashlib
import hmac
import io
import json
import re
import sys

import work

CASES = {
    "slow-40": "slow 40",
    "slow-160": "slow 160",
    "fixed-40": "fixed 40",
    "fixed-160": "fixed 160",
    "healthy-bulk": "healthy 160",
}
LABEL = {"slow": ["cpu-bound-python", "preprocessing-bound"]}
ALSO = {"fixed": ["cpu-bound-python", "preprocessing-bound", "native-hot-spot"], "healthy": ["native-hot-spot"]}
WHERE = "check|valid|resolve|walk"

SCHEMA = {
    "definitions": {
        "sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "count": {"type": "integer", "minimum": 1, "maximum": 500},
        "price": {"type": "number", "minimum": 0},
        "line": {
            "type": "object",
            "required": ["sku", "count", "price"],
            "properties": {"sku": {"$ref": "sku"}, "count": {"$ref": "count"}, "price": {"$ref": "price"}, "note": {"type": "string"}},
        },
    },
    "type": "object",
    "required": ["customer", "lines"],
    "properties": {"customer": {"type": "integer", "minimum": 0}, "lines": {"type": "array", "items": {"$ref": "line"}}},
}
TYPES = {"string": str, "integer": int, "number": (int, float), "object": dict, "array": list}


class WalkingValidator:
    def __init__(self, schema):
        self.schema, self.definitions = schema, schema["definitions"]

    def resolve(self, schema):
        while "$ref" in schema:
            schema = self.definitions[schema["$ref"]]
        return schema

    def check(self, value, schema=None, path=("order",)):
        schema = self.resolve(self.schema if schema is None else schema)
        for keyword, wanted in schema.items():
            rule = getattr(self, f"check_{keyword}", None)
            if rule is not None:
                rule(value, wanted, path)

    def fail(self, path, why):
        raise ValueError(f"{'.'.join(map(str, path))}: {why}")

    def check_type(self, value, wanted, path):
        if not isinstance(value, TYPES[wanted]):
            self.fail(path, f"is no {wanted}")

    def check_pattern(self, value, wanted, path):
        if re.search(wanted, value) is None:
            self.fail(path, "does not match")

    def check_minimum(self, value, wanted, path):
        if value < wanted:
            self.fail(path, "is too small")

    def check_maximum(self, value, wanted, path):
        if value > wanted:
            self.fail(path, "is too large")

    def check_required(self, value, wanted, path):
        for name in wanted:
            if name not in value:
                self.fail(path + (name,), "is missing")

    def check_properties(self, value, wanted, path):
        for name, schema in wanted.items():
            if name in value:
                self.check(value[name], schema, path + (name,))

    def check_items(self, value, wanted, path):
        for at, item in enumerate(value):
            self.check(item, wanted, path + (at,))


class WrittenValidator:
    def __init__(self, schema):
        self.definitions, self.names = schema["definitions"], {"ValueError": ValueError}
        code = ["def check(v0):", *self.write(schema, "v0", 1)]
        exec("\n".join(code), self.names)
        self.check = self.names["check"]

    def write(self, schema, name, depth):
        schema, tab = self.definitions.get(schema.get("$ref"), schema), "    " * depth
        bad = [f"not isinstance({name}, {TYPES[schema['type']]!r})".replace("<class '", "").replace("'>", "")]
        if "pattern" in schema:
            self.names[f"match{len(self.names)}"] = re.compile(schema["pattern"]).search
            bad.append(f"{list(self.names)[-1]}({name}) is None")
        bad += [f"{name} {sign} {schema[word]}" for word, sign in (("minimum", "<"), ("maximum", ">")) if word in schema]
        bad += [f"{word!r} not in {name}" for word in schema.get("required", ())]
        yield f"{tab}if {' or '.join(bad)}:"
        yield f"{tab}    raise ValueError({name!r} + ' of the order is wrong')"
        for word, inner in schema.get("properties", {}).items():
            yield f"{tab}if {word!r} in {name}:"
            yield f"{tab}    {name}{word} = {name}[{word!r}]"
            yield from self.write(inner, name + word, depth + 1)
        if "items" in schema:
            yield f"{tab}for {name}i in {name}:"
            yield from self.write(schema["items"], f"{name}i", depth + 1)


class Application:
    def __init__(self, check):
        self.check = check

    def score(self, body):
        seed = hashlib.sha3_512(body).digest()
        return hashlib.pbkdf2_hmac("sha256", seed, b"risk", 200).hex()

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        try:
            if "HTTP_X_SIGNATURE" in environ:
                if hmac.new(b"partner", body, "sha256").hexdigest() != environ["HTTP_X_SIGNATURE"]:
                    raise ValueError("signature")
            else:
                self.check(json.loads(body))
        except ValueError as error:
            start_response("400 Bad Request", [])
            return [str(error).encode()]
        answer = self.score(body).encode()
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]


def order(number, lines):
    goods = [{"sku": f"ABC-{(number + at) % 10_000:04}", "count": 1 + at % 9, "price": at * 1.25, "note": "x" * 20} for at in range(lines)]
    return json.dumps({"customer": number, "lines": goods}).encode()


def main():
    variant, lines = sys.argv[1], int(sys.argv[2])
    application = Application((WalkingValidator if variant == "slow" else WrittenValidator)(SCHEMA).check)
    bodies = [order(number, lines) for number in range(50)]
    headers = [{"CONTENT_LENGTH": str(len(body))} for body in bodies]
    if variant == "healthy":
        for body, header in zip(bodies, headers):
            header["HTTP_X_SIGNATURE"] = hmac.new(b"partner", body, "sha256").hexdigest()

    def request(number):
        status = []
        environ = {**headers[number % 50], "REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(bodies[number % 50])}
        application(environ, lambda line, fields: status.append(line))
        assert status == ["200 OK"], status

    work.run(request, {"slow": {40: 5500, 160: 2200}, "fixed": {40: 14_000, 160: 7000}, "healthy": {160: 18_000}}[variant][lines])


main()
