from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from broker.cli.konvolutt import app

if TYPE_CHECKING:
    from conftest import Desk

PAGE = Path(__file__).parents[4] / "docs/konvolutt.md"


@pytest.mark.parametrize(
    "arguments",
    [
        ("open", "--bare", "--nokkel", "k", "--ut", "u", "--rot", "r", "f"),
        ("open", "--bare", "--nokkel", "k", "--ut", "u", "--mappe", "m", "f"),
        ("open", "--bare", "--nokkel", "k", "f"),
        ("open", "--bare", "--nokkel", "k", "--ut", "-", "--json", "f"),
        ("open", "--nokkel", "k", "--rot", "r", "--mappe", "m", "--ut", "u", "f"),
        ("open", "--nokkel", "k", "--mappe", "m", "f"),
        ("open", "--rot", "r", "--mappe", "m", "f"),
        ("seal", "--bare", "--mottaker", "m", "--ut", "u", "--avsender", "a", "f"),
        ("seal", "--bare", "--mottaker", "m", "--ut", "u", "f", "g"),
        ("seal", "--bare", "--mottaker", "m", "--ut", "-", "--json", "f"),
        ("seal", "--mottaker", "m", "--ut", "-", "--avsender", "a", "--nokkel", "k", "f"),
        ("inspect", "--rot", "r", "f"),
    ],
)
def test_options_that_do_not_fit_together_are_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def formidler(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command as it is really run: in a process of its own."""
    command = [sys.executable, "-m", "broker.cli", "konvolutt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def test_round_trip_through_pipes(desk: Desk) -> None:
    sealed = formidler("seal", "--bare", "--mottaker", desk / "kommune.pem", "--ut", "-", "-", input=desk.PDF)
    assert sealed.returncode == 0, sealed.stderr
    key = desk / "kommune.key"
    opened = formidler("open", "--bare", "--nokkel", key, "--ut", "-", "-", input=sealed.stdout)
    assert (opened.returncode, opened.stdout) == (0, desk.PDF)
    assert "beskytter ikke mot endring" in opened.stderr.decode()


def test_nothing_comes_out_of_a_damaged_pipe(desk: Desk) -> None:
    sealed = formidler("seal", "--bare", "--mottaker", desk / "kommune.pem", "--ut", "-", "-", input=desk.PDF)
    key = desk / "kommune.key"
    opened = formidler("open", "--bare", "--nokkel", key, "--ut", "-", "-", input=sealed.stdout[:-2])
    assert (opened.returncode, opened.stdout) == (1, b"")


@pytest.mark.parametrize("command", ["seal", "open", "inspect"])
def test_without_arguments_is_wrong_usage(command: str) -> None:
    assert CliRunner().invoke(app, [command]).exit_code == 2


@pytest.mark.parametrize("command", ["seal", "open", "inspect"])
def test_help_has_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert f"Eksempel: formidler konvolutt {command}" in result.stdout


def test_loads_neither_a_web_framework_nor_kafka(desk: Desk) -> None:
    desk.seal()
    program = (
        "import sys; from broker.cli.main import app\n"
        f"sys.argv[1:] = ['konvolutt', 'inspect', {str(desk / 'pakke.cms')!r}, '--json']\n"
        "try: app()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({'fastapi', 'starlette', 'uvicorn', 'aiokafka', 'confluent_kafka', 'httpx', 'asyncio'} "
        "& set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stderr.decode().strip() == "[]"


@pytest.mark.openssl
def test_the_page_opens_and_verifies_our_package_with_openssl_alone(desk: Desk) -> None:
    assert desk.seal().exit_code == 0
    block = next(block for block in blocks() if "unzip" in block)
    program = block.replace("unzip -q pakke.asice -d ut", f"{sys.executable} -m zipfile -e pakke.asice ut")
    done = subprocess.run(["sh", "-ec", program], cwd=desk.folder, capture_output=True, check=True)
    assert b"Verification successful" in done.stderr
    assert done.stdout.strip() in (desk / "ut/META-INF/ASiCManifest.xml").read_bytes()


@pytest.mark.openssl
def test_the_pages_own_key_pair_serves(desk: Desk) -> None:
    block = next(block for block in blocks() if "openssl req" in block)
    subprocess.run(["sh", "-ec", block], cwd=desk.folder, capture_output=True, check=True)
    assert desk.seal().exit_code == 0
    assert desk.open().exit_code == 0


def blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
