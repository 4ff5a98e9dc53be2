"""The compose files: what their comments promise and, if compose is available, that it accepts them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.deploy.stack import ROOT

BASE = ROOT / "docker-compose.yml"
OTHERS = sorted((ROOT / "deploy" / "compose").glob("*.yml"))
CONFIGURATIONS = [[BASE], *([BASE, other] for other in OTHERS)]
HAPROXY = ROOT / "deploy" / "haproxy" / "haproxy.cfg"


@cache
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(BASE.read_text())["services"]
    return found


def compose() -> list[str]:
    """Returns the command for compose; empty if it is not available."""
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if asked.returncode == 0:
            return ["docker", "compose"]
    found = shutil.which("docker-compose")
    return [found] if found else []


@pytest.mark.parametrize("files", CONFIGURATIONS, ids=lambda files: files[-1].name)
def test_compose_takes_them(files: list[Any]) -> None:
    program = compose()
    if not program:
        pytest.skip("neither docker compose nor docker-compose is here")
    variables = {
        "ACCESS": "/access",
        "COMPOSE_PROFILES": "dashboards",
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
    }
    words = [word for file in files for word in ("-f", str(file))]
    ran = subprocess.run(
        [*program, *words, "config", "--quiet"], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("target", ["up", "down", "roll", "backup", "restore"])
def test_make_leaves_to_a_env_file_what_it_says(target: str, tmp_path: Path) -> None:
    """`docker compose` itself reads .env. Files or profiles that make added would override it, but only for make."""
    command = ["make", "--dry-run", f"--file={ROOT / 'Makefile'}", target, "COMPOSE=compose", "BACKUP=redis.rdb"]

    def planned() -> str:
        variables = {"PATH": os.environ["PATH"]}
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout

    assert "env COMPOSE_PROFILES=dashboards compose -f docker-compose.yml" in planned()
    (tmp_path / ".env").write_text("COMPOSE_FILE=docker-compose.yml:deploy/compose/tls.yml\n")
    told = planned()
    assert re.search(r"(^| )compose( |$)", told, re.MULTILINE)
    assert "COMPOSE_PROFILES" not in told
    assert "-f docker-compose.yml" not in told


def test_what_does_not_come_up_says_where_to_look(tmp_path: Path) -> None:
    """Compose names a container by its number. docker, compose: programs in their places."""
    (tmp_path / "docker").symlink_to("/bin/true")
    command = ["make", f"--file={ROOT / 'Makefile'}", "up", "COMPOSE=false"]
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    words = "env COMPOSE_PROFILES=dashboards false -f docker-compose.yml logs --tail 20"
    assert ran.stderr.splitlines()[0] == f"up: its logs say why: {words}"


def test_make_takes_folders_as_a_shell_does(tmp_path: Path) -> None:
    """compose would take `pump` for the name of a volume."""
    shown = "printenv MODEL ACCESS; true"
    command = ["make", "--silent", f"--file={ROOT / 'Makefile'}", "down", f"COMPOSE={shown}", "ACCESS=access"]
    variables = {"PATH": os.environ["PATH"], "MODEL": "models/pump"}
    ran = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [str(tmp_path / "models" / "pump"), str(tmp_path / "access")]


def test_each_container_sees_only_its_own_secrets() -> None:
    """The proxy gets no token, the replicas get no key, and neither gets what clients hold."""
    found = yaml.safe_load((ROOT / "deploy" / "compose" / "tls.yml").read_text())["services"]
    mounts = {
        name: [re.sub(r"\$\{ACCESS:.*?\}", "ACCESS", one) for one in part["volumes"]] for name, part in found.items()
    }
    assert mounts == {"cellkeeper": ["ACCESS/service:/access:ro"], "haproxy": ["ACCESS/proxy:/access:ro"]}
    assert found["cellkeeper"]["command"][-2:] == ["--tokens", "/access/tokens"]
    assert found["haproxy"]["environment"] == {"TLS_CERTIFICATE": "/access/certificate.pem"}


def test_the_parts_are_there() -> None:
    assert set(services()) == {"redis", "cellkeeper", "haproxy", "prometheus", "grafana"}


def test_nothing_is_published_beyond_loopback() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_everything_is_read_only_and_gains_no_privileges() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_redis_is_where_only_the_service_reaches_it() -> None:
    networks = yaml.safe_load(BASE.read_text())["networks"]
    assert networks["store"]["internal"] is True
    assert {name for name, service in services().items() if "store" in service["networks"]} == {"redis", "cellkeeper"}


@pytest.mark.parametrize("file", [BASE, ROOT / "deploy" / "compose" / "redis-cluster.yml"], ids=lambda file: file.name)
def test_redis_keeps_what_was_acknowledged(file: Any) -> None:
    found = yaml.safe_load(file.read_text())["services"]
    nodes = {name: one for name, one in found.items() if re.fullmatch(r"redis(-\d)?", name)}
    assert len(nodes) == (1 if file == BASE else 6)
    for name, node in nodes.items():
        command = node["command"]
        settings = dict(zip(command[1::2], command[2::2], strict=True))
        assert settings["--appendonly"] == "yes", name
        assert settings["--maxmemory-policy"] == "noeviction", name


def test_each_waits_for_what_it_needs() -> None:
    waits = {name: service.get("depends_on") for name, service in services().items()}
    assert waits["cellkeeper"] == {"redis": {"condition": "service_healthy"}}
    assert waits["haproxy"] == {"cellkeeper": {"condition": "service_healthy"}}
    assert waits["prometheus"] == {"haproxy": {"condition": "service_healthy"}}


@pytest.mark.parametrize("files", CONFIGURATIONS, ids=lambda files: files[-1].name)
def test_what_is_mounted_is_there(files: list[Any]) -> None:
    for file in files:
        for service in yaml.safe_load(file.read_text())["services"].values():
            for volume in service.get("volumes", []):
                source = volume.replace("${MODEL:-./examples/co2/bundle}", "./examples/co2/bundle").split(":")[0]
                assert not source.startswith(".") or (ROOT / source).exists(), source


def test_the_proxy_and_prometheus_use_the_ports_of_the_service() -> None:
    command = services()["cellkeeper"]["command"]
    grpc, metrics = (command[command.index(flag) + 1].rpartition(":")[2] for flag in ("--listen", "--metrics-listen"))
    text = HAPROXY.read_text()
    assert text.count(f"server-template replica 16 cellkeeper:{grpc} proto h2") == 2
    assert text.count(f"http-check connect port {metrics} ") == 2
    assert text.count("bind :50051 proto h2") == 1
    assert text.count('bind :50051 ssl crt "${TLS_CERTIFICATE}" alpn h2') == 1
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    found = {job["job_name"]: job for job in jobs}["cellkeeper"]["dns_sd_configs"]
    assert [(one["names"], one["port"]) for one in found] == [(["cellkeeper"], int(metrics))]


def test_grafana_finds_its_data_and_its_dashboard() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    provider = yaml.safe_load((provisioning / "dashboards" / "cellkeeper.yml").read_text())["providers"][0]
    mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in services()["grafana"]["volumes"]}
    assert (ROOT / mounts[provider["options"]["path"]] / "cellkeeper.json").exists()


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy on the PATH")
def test_haproxy_takes_its_configuration() -> None:
    ran = subprocess.run(["haproxy", "-c", "-f", str(HAPROXY)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "WARNING" not in ran.stderr
