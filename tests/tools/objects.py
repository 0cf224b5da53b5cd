"""The Kubernetes objects of YAML on standard input, as a JSON list on standard output.

With versions as arguments, such as 1.32, each is first held against the schemas of those, strictly: a field that is not
in them is an error. Kinds that are not Kubernetes's own have no schema here; they are listed on standard error.
"""

import json
import sys

import kubernetes_validate as validate
import yaml


class Once(yaml.CSafeLoader):
    """Rejects duplicate keys, which parsers treat differently."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


objects = [one for one in yaml.load_all(sys.stdin, Loader=Once) if one is not None]
for version in sys.argv[1:]:
    for one in objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        try:
            validate.validate(one, version, strict=True)
        except validate.SchemaNotFoundError:
            print(f"no schema: {name}", file=sys.stderr)
        except validate.ValidationError as error:
            sys.exit(f"{name} is no object of Kubernetes {version}: {error.path}: {error.message}")
json.dump(objects, sys.stdout)
