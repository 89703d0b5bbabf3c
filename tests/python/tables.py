"""Opens merged.parquet with DuckDB and Polars, compares it with analysis.json and merged.arrow, all in this folder.

Arguments: the document with queries, which are all run, and the analysis's JSON Schema.
"""

import json
import re
import sys

import duckdb
import jsonschema
import polars as pl

sql, schema = (open(path, encoding="utf-8").read() for path in sys.argv[1:])
analysis = json.load(open("analysis.json", encoding="utf-8"))
jsonschema.Draft202012Validator(json.loads(schema)).validate(analysis)

texts = pl.col("kind", "name", "file").cast(pl.String)
table = pl.read_parquet("merged.parquet").with_columns(texts)
assert table.equals(pl.read_ipc_stream("merged.arrow").with_columns(texts)), "the Arrow stream has other rows"
rows = table.select("kind", "name", "file", "line", "parent", "dur_ns", "args").rows()


def key(row):
    return rows[row][:4]


calls, totals = {}, {}
for row, (kind, _, _, _, parent, dur_ns, args) in enumerate(rows):
    if kind not in ("python", "native"):
        continue
    calls[key(row)] = calls.get(key(row), 0) + ("resumed" not in json.loads(args or "{}"))
    while parent is not None and key(parent) != key(row):
        parent = rows[parent][4]
    if parent is None:  # of a function that calls itself only the outermost counts
        totals[key(row)] = totals.get(key(row), 0) + dur_ns
functions = [f for f in analysis["functions"] if f["kind"] in ("python", "native")]
assert len(functions) > 50, len(functions)
for f in functions:
    own = (f["kind"], f["name"], f["file"], f["line"])
    assert (f["calls"], f["total_ns"]) == (calls[own], totals[own]), (f, calls[own], totals[own])
by_name = {f["name"]: f for f in functions}
assert by_name["recurse"]["calls"] == 30 and by_name["leaf"]["calls"] == 38, by_name["leaf"]

# the same sums in SQL, for a function that does not call itself
connection = duckdb.connect()
(found,) = connection.execute(
    "SELECT count(*), sum(dur_ns) FROM 'merged.parquet' WHERE kind = 'python' AND name = 'leaf'"
).fetchall()
assert found == (38, by_name["leaf"]["total_ns"]), found

queries = 0
for language, code in re.findall(r"```(sql|python)\n(.*?)```", sql, re.S):
    if language == "sql":
        for query in filter(str.strip, code.split(";")):
            connection.execute(query).fetchall()
            queries += 1
    else:
        exec(code, {})
        queries += 1
assert queries >= 6, queries
print("all agree")
