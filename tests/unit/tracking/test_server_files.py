import re
from pathlib import Path

import yaml

HOME = Path(__file__).parents[3] / "mlflow"


def test_the_folder_holds_no_python_so_it_never_hides_the_package():
    assert not list(HOME.rglob("*.py"))


def test_every_port_is_bound_to_loopback():
    services = yaml.safe_load((HOME / "compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_the_start_script_asks_for_is_given_in_the_containers():
    asked = set(re.findall(r"^: \"\$\{(\w+):\?", (HOME / "serve.sh").read_text(), re.MULTILINE))
    assert asked == {
        "PGDATABASE", "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD", "STILLHOUSE_ARTIFACTS",
    }  # fmt: skip
    given = yaml.safe_load((HOME / "compose.yaml").read_text())["services"]["mlflow"]["environment"]
    image = re.findall(r"(STILLHOUSE_\w+)=", (HOME / "Dockerfile").read_text())
    assert asked <= {*given, *image}


def test_secrets_come_from_the_environment_and_stand_empty_in_the_example():
    example = dict(
        line.split("=", 1) for line in (HOME / "server.env.example").read_text().splitlines() if re.match(r"\w+=", line)
    )
    wanted = set(re.findall(r"\$\{(\w+):\?", (HOME / "compose.yaml").read_text()))
    assert wanted == {name for name, value in example.items() if not value}
    assert "admin_password" not in (HOME / "auth.ini").read_text()
