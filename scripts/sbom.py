#!/usr/bin/env python3
"""The bill of materials of a program, in CycloneDX JSON: scripts/sbom.py TARGET [lean] [--time SECONDS]

What is linked into the program for TARGET, from `cargo metadata --locked`: crates with version, licence, source and the
digest that Cargo.lock holds, and which needs which. Tools of the build and of the tests are not in it. The same sources
give the same bytes.
"""

import datetime
import json
import re
import subprocess
import sys
import uuid


def metadata(target: str, lean: bool) -> dict:
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={target}"]
    if lean:
        command.append("--no-default-features")
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def digests() -> dict:
    """(name, version) to the SHA-256 of the crate's archive."""
    with open("Cargo.lock", encoding="utf-8") as file:
        packages = file.read().split("[[package]]")[1:]
    found = {}
    for package in packages:
        value = dict(re.findall(r'^(name|version|checksum) = "(.*)"$', package, re.M))
        if "checksum" in value:
            found[value["name"], value["version"]] = value["checksum"]
    return found


def linked(resolve: dict) -> dict:
    """Ids of the crates that are linked, each with those that it needs. Build scripts and macros run elsewhere."""
    nodes = {node["id"]: node for node in resolve["nodes"]}
    found, waiting = {}, [resolve["root"]]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        needs = [
            dependency["pkg"]
            for dependency in nodes[current]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        found[current] = sorted(needs)
        waiting.extend(needs)
    return found


def purl(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package: dict, kind: str) -> dict:
    entry = {
        "type": kind,
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package.get("license"):
        # Cargo's old spelling of OR.
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if package.get("repository"):
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def library(package: dict, known: dict) -> dict:
    entry = component(package, "library")
    digest = known.get((package["name"], package["version"]))
    if digest:
        entry["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return entry


def main() -> None:
    arguments = sys.argv[1:]
    time = 0
    if "--time" in arguments:
        at = arguments.index("--time")
        time = int(arguments[at + 1])
        del arguments[at : at + 2]
    if not arguments or arguments[1:] not in ([], ["lean"]) or arguments[0].startswith("-"):
        sys.exit(__doc__)
    target, lean = arguments[0], arguments[1:] == ["lean"]
    data = metadata(target, lean)
    packages = {package["id"]: package for package in data["packages"]}
    macros = {
        id for id, package in packages.items() if any("proc-macro" in t["kind"] for t in package["targets"])
    }
    needs = {
        id: [need for need in found if need not in macros]
        for id, found in linked(data["resolve"]).items()
        if id not in macros
    }
    # Through macros alone nothing is linked.
    root, known, reached, waiting = data["resolve"]["root"], digests(), set(), [data["resolve"]["root"]]
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached.add(current)
            waiting.extend(needs[current])
    order = sorted(reached - {root}, key=lambda id: (packages[id]["name"], packages[id]["version"]))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": None,
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(packages[root], "application"),
            "properties": [
                {"name": "codling:target", "value": target},
                {"name": "codling:features", "value": "lean" if lean else "full"},
            ],
        },
        "components": [library(packages[id], known) for id in order],
        "dependencies": [
            {"ref": purl(packages[id]), "dependsOn": sorted(purl(packages[need]) for need in needs[id])}
            for id in [root, *order]
        ],
    }
    # A number of its own for each content, and the same one for the same.
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
