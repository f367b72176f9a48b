"""The OpenAPI documents: sound in themselves, served as they are in the source, and true of real answers.

That they describe the route tables, all of them and nothing else, is held by src/cli/openapi_test.c.
"""
import re
from pathlib import Path

import pytest
import yaml

from client import curl

SOURCE = Path(__file__).resolve().parents[2] / "src"
DOCUMENTS = {role: (SOURCE / role / "openapi.yaml").read_text() for role in ("proxy", "server")}
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list,
         "null": type(None)}


def parse(role):
    return yaml.safe_load(DOCUMENTS[role])


def nodes(tree):
    yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(child)


def resolve(document, node):
    while isinstance(node, dict) and "$ref" in node:
        target = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def complaints(document, schema, value, where="answer"):
    """What in a JSON value is not as its schema says; the parts of JSON Schema that the documents use."""
    schema = resolve(document, schema)
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(isinstance(value, TYPES[t]) for t in types):
        yield f"{where} is not {types}"
    if "const" in schema and value != schema["const"] or "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{where} does not match {schema['pattern']}"
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from complaints(document, schema.get("items", {}), item, f"{where}[{i}]")
    if isinstance(value, dict):
        yield from (f"{where} lacks {name}" for name in schema.get("required", []) if name not in value)
        for name, item in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if "properties" in schema and known is None:
                yield f"{where}.{name} is not described"
            elif isinstance(known, dict):
                yield from complaints(document, known, item, f"{where}.{name}")


def check_answer(role, method, path, answer):
    """The status is one of the operation's, and the body as its schema says."""
    document = parse(role)
    response = resolve(document, document["paths"][path][method]["responses"][str(answer.status)])
    media_type = answer.header("content-type").split(";")[0]
    assert list(complaints(document, response["content"][media_type]["schema"], answer.json)) == []


@pytest.mark.parametrize("role", DOCUMENTS)
def test_references_lead_somewhere_and_nothing_is_unused(role):
    document = parse(role)
    used = set()
    for node in nodes(document):
        if isinstance(node, dict) and "$ref" in node:
            resolve(document, node)
            used.add(node["$ref"])
    defined = {f"#/components/{kind}/{name}" for kind, names in document["components"].items() for name in names}
    # Security schemes are named, not referred to.
    assert all(name.startswith("#/components/securitySchemes/") for name in defined - used)
    assert document["components"]["securitySchemes"]["certificate"]["type"] == "mutualTLS"


@pytest.mark.parametrize("role", DOCUMENTS)
def test_operations_are_complete(role):
    document = parse(role)
    assert document["openapi"].startswith("3.1")
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in document["tags"]}
    for path, _, operation in operations(document):
        declared = [resolve(document, p) for p in operation.get("parameters", [])]
        in_path = {p["name"] for p in declared if p["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path)), path
        assert set(operation["tags"]) <= tags
        for response in operation["responses"].values():
            assert resolve(document, response)["description"]


def test_served_as_in_the_source(shared):
    with shared.anonymous() as client:
        answer = client.get("/openapi.yaml")
    assert (answer.status, answer.header("content-type")) == (200, "application/yaml")
    assert answer.body.decode() == DOCUMENTS["proxy"]
    assert curl(shared.daemon.ready["server"] + "/openapi.yaml", ca=shared.identity.ca).body.decode() \
        == DOCUMENTS["server"]


def test_answers_of_the_ingest_listener(shared):
    batch = ('[{"sender_number":"+4915112345678","message_body":"one"},'
             '{"sender_number":"49","message_body":"two"}]')
    with shared.client() as client:
        accepted = client.post("described")
        check_answer("proxy", "post", "/api/v1/messages", accepted)
        check_answer("proxy", "post", "/api/v1/messages", client.post(""))
        check_answer("proxy", "post", "/api/v1/messages/batch",
                     client.request("POST", "/api/v1/messages/batch", batch, {"Content-Type": "application/json"}))
        check_answer("proxy", "get", "/api/v1/messages/{id}", client.get(accepted.header("location")))
        check_answer("proxy", "get", "/api/v1/messages/{id}", client.get("/api/v1/messages/none"))
        check_answer("proxy", "get", "/api/v1/health", client.get("/api/v1/health"))


ADMIN_READS = ["/admin/certificates", "/admin/messages", "/admin/queue/stats", "/admin/queue/messages", "/admin/stats",
               "/admin/audit", "/admin/clients", "/admin/ca"]


@pytest.mark.parametrize("path", ADMIN_READS)
def test_answers_of_the_main_server(shared, path):
    admin = shared.daemon.issue("an-admin", "--role", "admin")
    check_answer("server", "get", path, curl(shared.daemon.ready["server"] + path, admin))
