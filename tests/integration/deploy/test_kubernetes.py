"""The manifests: valid by Kubernetes' own schemas, and consistent with each other, the image and the service."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cellkeeper_service.server.config import Settings

from tests.integration.deploy.stack import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.31", "1.37"


@cache
def manifests() -> list[tuple[str, dict[str, Any]]]:
    """Returns (file name, object) of everything but the kustomization."""
    files = [path for path in sorted(FOLDER.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [(path.name, found) for path in files for found in yaml.safe_load_all(path.read_text())]


def one(kind: str, name: str = "cellkeeper") -> dict[str, Any]:
    found = [item for _, item in manifests() if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{kind} {name}: {len(found)} of them"
    return found[0]


def container() -> dict[str, Any]:
    found: dict[str, Any] = one("StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_schemas(version: str) -> None:
    checked = 0
    for file, item in manifests():
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{file}: {error.message} at {list(error.path)}")
        checked += 1
    assert checked >= 8


def test_the_kustomization_names_every_file() -> None:
    named = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == sorted({file for file, _ in manifests()})


def test_selectors_find_the_pods() -> None:
    labels = one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one("StatefulSet")["spec"]["selector"]["matchLabels"],
        one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one("Service")["spec"]["selector"],
        one("Service", "cellkeeper-replicas")["spec"]["selector"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()


def test_names_lead_somewhere() -> None:
    stateful = one("StatefulSet")
    pod = stateful["spec"]["template"]["spec"]
    assert one("Service", stateful["spec"]["serviceName"])["spec"]["clusterIP"] == "None"
    assert one("ServiceAccount", pod["serviceAccountName"])
    assert one("ConfigMap", container()["envFrom"][0]["configMapRef"]["name"])
    target = one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"], target["name"]) == (
        stateful["apiVersion"],
        "StatefulSet",
        "cellkeeper",
    )
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes


def test_ports() -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    settings = one("ConfigMap")["data"]
    assert settings["CELLKEEPER_LISTEN"] == f"0.0.0.0:{ports['grpc']}"
    assert settings["CELLKEEPER_METRICS_LISTEN"] == f"0.0.0.0:{ports['metrics']}"
    exposed = re.search(r"^EXPOSE (.*)$", (ROOT / "service" / "Dockerfile").read_text(), re.MULTILINE)
    assert exposed is not None
    assert exposed.group(1).split() == [str(port) for port in ports.values()]
    for service in (one("Service"), one("Service", "cellkeeper-replicas")):
        for port in service["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"]["port"] in ports
    allowed = [port["port"] for rule in one("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
    assert sorted(allowed) == sorted(ports)
    annotations = one("StatefulSet")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])


def test_the_service_takes_its_settings() -> None:
    variables = {**one("ConfigMap")["data"], **{item["name"]: "redis://redis:6379/0" for item in container()["env"]}}
    words = container()["args"]
    settings = Settings.read(words[1:], variables)
    assert words[0] == "serve"
    assert settings.store == "redis://redis:6379/0"
    pod = one("StatefulSet")["spec"]["template"]["spec"]
    waits = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    # app.py waits this long, plus a few seconds for replies and connections
    assert pod["terminationGracePeriodSeconds"] >= waits + settings.drain_timeout_ms / 1000 + 5


def test_variables_of_the_cluster_do_not_reach_the_service() -> None:
    """The service refuses CELLKEEPER_PORT, which Kubernetes would set for a Service named cellkeeper."""
    assert one("Service")["metadata"]["name"] == "cellkeeper"
    assert one("StatefulSet")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_least_privileges() -> None:
    pod = one("StatefulSet")["spec"]["template"]["spec"]
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "service" / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user.group(1)),
        "runAsGroup": int(user.group(2)),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


def test_disruptions_leave_a_replica() -> None:
    assert one("PodDisruptionBudget")["spec"]["maxUnavailable"] < one("HorizontalPodAutoscaler")["spec"]["minReplicas"]


def test_applying_the_manifests_again_leaves_the_number_of_replicas_to_the_autoscaler() -> None:
    """With a number in the StatefulSet, `kubectl apply` would stop at once what the autoscaler has added."""
    assert one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
    assert "replicas" not in one("StatefulSet")["spec"]


def test_the_autoscaler_asks_for_a_metric_that_the_adapter_serves() -> None:
    pods = [metric["pods"] for metric in one("HorizontalPodAutoscaler")["spec"]["metrics"] if metric["type"] == "Pods"]
    adapter = yaml.safe_load((ROOT / "deploy" / "prometheus" / "adapter.yml").read_text())["rules"]["custom"]
    assert [metric["metric"]["name"] for metric in pods] == [rule["name"]["as"] for rule in adapter]
