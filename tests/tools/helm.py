"""Helm, as a library: a JSON request on standard input, a JSON response on standard output.

{"do": "render", "chart": …, "values": …, "name": …, "namespace": …} → {template: text, …}
{"do": "lint", "chart": …, "values": …} → {"messages": […], "errors": […]}
{"do": "package", "chart": …, "destination": …} → {"path": …}

What Helm refuses goes to standard error as it says it, with status 1.
"""

import json
import sys

import helm_python as helm


def answer(request):
    match request["do"]:
        case "render":
            with helm.Chart.load(request["chart"]) as chart:
                chart.validate_schema(chart.merge_values(request["values"]))
                return chart.render(
                    request["values"], name=request["name"], namespace=request["namespace"]
                )
        case "lint":
            return helm.lint(
                request["chart"], request["values"], strict=True, namespace="arp-monitor"
            )
        case "package":
            return {"path": helm.package(request["chart"], destination=request["destination"])}


try:
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
except helm.HelmError as refused:
    sys.exit(str(refused))
