"""Settings: defaults, Hugging Face's own rules, wrong values, and the README's table."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_manager.errors import InvalidSetting
from mlx_manager.settings import SETTINGS, Setting, Settings

README = Path(__file__).parents[2] / "README.md"


def test_the_table_has_each_field_once_and_in_order() -> None:
    assert [setting.field for setting in SETTINGS] == [field.name for field in dataclasses.fields(Settings)]
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)


def test_defaults() -> None:
    settings = Settings.load({})
    assert (settings.host, settings.port, settings.max_downloads, settings.connections) == ("127.0.0.1", 10242, 3, 32)
    assert (settings.size_check_s, settings.hub_timeout_s, settings.stall_s) == (30.0, 10.0, 10.0)
    assert (settings.log_level, settings.log_format) == ("INFO", "text")
    assert (settings.hf_endpoint, settings.hf_hub_offline) == ("https://huggingface.co", False)
    assert (settings.engine, settings.hf_hub_disable_xet, settings.hf_hub_disable_telemetry) == ("auto", False, True)
    assert settings.home.is_absolute()
    assert settings.home.name == "mlx-manager"
    assert settings.is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "::1"])
def test_on_this_machine_alone_no_token_is_needed(host: str) -> None:
    settings = Settings.load({"MLX_MANAGER_HOST": host})
    assert settings.is_loopback
    assert not settings.needs_token
    assert Settings.load({"MLX_MANAGER_HOST": host, "MLX_MANAGER_ACCESS": "token"}).needs_token
    assert Settings.load({"MLX_MANAGER_HOST": host, "MLX_MANAGER_NAMES": "nas.lan"}).needs_token, "others come by it"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "nas.lan", "127.evil.example", "localhost.example"])
def test_where_others_can_come_a_token_is_needed(host: str) -> None:
    """A name that begins like a loopback address was taken for one."""
    assert Settings.load({"MLX_MANAGER_HOST": host}).needs_token


def test_a_blank_value_counts_as_not_set() -> None:
    assert Settings.load({setting.variable: "  " for setting in SETTINGS}) == Settings.load({})


def test_values_are_read(tmp_path: Path) -> None:
    env = {
        "MLX_MANAGER_HOME": str(tmp_path / "home"),
        "MLX_MANAGER_HOST": "0.0.0.0",
        "MLX_MANAGER_PORT": "0",
        "MLX_MANAGER_NAMES": "Models.example, nas.lan",
        "MLX_MANAGER_ACCESS": "Token",
        "MLX_MANAGER_MAX_STREAMS": "300",
        "MLX_MANAGER_MAX_DOWNLOADS": "5",
        "MLX_MANAGER_CONNECTIONS": "12",
        "MLX_MANAGER_TOTAL_CONNECTIONS": "24",
        "MLX_MANAGER_BANDWIDTH": "5000000",
        "MLX_MANAGER_MIRRORS": "https://a.example/, http://127.0.0.1:9/hf",
        "MLX_MANAGER_ENGINE": "XET",
        "MLX_MANAGER_SIZE_CHECK_S": "0.5",
        "MLX_MANAGER_HUB_TIMEOUT_S": "2",
        "MLX_MANAGER_STALL_S": "7.5",
        "MLX_MANAGER_LOG_LEVEL": "debug",
        "MLX_MANAGER_LOG_FORMAT": "JSON",
        "HF_ENDPOINT": "http://127.0.0.1:8080/",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "yes",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "0",
    }
    settings = Settings.load(env)
    assert settings == Settings(
        home=tmp_path / "home",
        host="0.0.0.0",
        port=0,
        names=("models.example", "nas.lan"),
        access="token",
        max_streams=300,
        max_downloads=5,
        connections=12,
        total_connections=24,
        bandwidth=5_000_000,
        mirrors=("https://a.example", "http://127.0.0.1:9/hf"),
        engine="xet",
        size_check_s=0.5,
        hub_timeout_s=2.0,
        stall_s=7.5,
        log_level="DEBUG",
        log_format="json",
        hf_endpoint="http://127.0.0.1:8080",
        hf_home=tmp_path / "hf",
        hf_hub_cache=tmp_path / "hf" / "hub",
        hf_hub_offline=True,
        hf_hub_disable_xet=True,
        hf_hub_disable_telemetry=False,
    )
    assert not settings.is_loopback
    assert settings.log_file == tmp_path / "home" / "logs" / "mlx-manager.log"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLX_MANAGER_PORT", "65536"),
        ("MLX_MANAGER_PORT", "-1"),
        ("MLX_MANAGER_PORT", "http"),
        ("MLX_MANAGER_PORT", "٣"),
        ("MLX_MANAGER_MAX_DOWNLOADS", "0"),
        ("MLX_MANAGER_CONNECTIONS", "1000"),
        ("MLX_MANAGER_SIZE_CHECK_S", "nan"),
        ("MLX_MANAGER_SIZE_CHECK_S", "0"),
        ("MLX_MANAGER_HUB_TIMEOUT_S", "inf"),
        ("MLX_MANAGER_STALL_S", "soon"),
        ("MLX_MANAGER_ENGINE", "torrent"),
        ("MLX_MANAGER_LOG_LEVEL", "LOUD"),
        ("MLX_MANAGER_LOG_FORMAT", "xml"),
        ("MLX_MANAGER_HOST", "http://127.0.0.1"),
        ("MLX_MANAGER_HOST", "[::1]"),
        ("MLX_MANAGER_NAMES", "https://models.example"),
        ("MLX_MANAGER_NAMES", "nas.lan:8080"),
        ("MLX_MANAGER_NAMES", "*"),
        ("MLX_MANAGER_ACCESS", "none"),
        ("MLX_MANAGER_MAX_STREAMS", "0"),
        ("HF_ENDPOINT", "huggingface.co"),
        ("MLX_MANAGER_MIRRORS", "https://a.example, b.example"),
        ("HF_ENDPOINT", "http://["),
        ("MLX_MANAGER_HOME", "a\0b"),
    ],
)
def test_a_wrong_value_names_its_variable_and_the_next_step(variable: str, value: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load({variable: value})
    assert caught.value.detail.startswith(f"{variable} is ")
    assert "must be" in caught.value.detail
    assert variable in caught.value.advice


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load({"HF_ENDPOINT": "https://me:s3cret@hub.example"})
    assert "s3cret" not in caught.value.detail
    assert "hub.example" in caught.value.detail


HF_ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"HF_HOME": "/data/hf"},
    {"HF_HOME": "~/hf"},
    {"HF_HOME": "$HOME/hf"},
    {"XDG_CACHE_HOME": "/data/cache"},
    {"HF_HUB_CACHE": "/data/models"},
    {"HF_HOME": "/data/hf", "HF_HUB_CACHE": "~/models"},
    {"HUGGINGFACE_HUB_CACHE": "/data/old"},
    {"HF_HUB_CACHE": "/data/models", "HUGGINGFACE_HUB_CACHE": "/data/old"},
    {"HF_ENDPOINT": "https://mirror.example/"},
    {"HF_HUB_OFFLINE": "1"},
    {"HF_HUB_OFFLINE": "true"},
    {"HF_HUB_OFFLINE": "0"},
    {"TRANSFORMERS_OFFLINE": "ON"},
    {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
    {"HF_HUB_DISABLE_XET": "true"},
]

_ASK = """
import json, os, sys
import huggingface_hub.constants
from importlib import reload
answers = []
for env in json.load(sys.stdin):
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGINGFACE", "XDG_", "TRANSFORMERS_")):
            del os.environ[name]
    os.environ.update(env)
    c = reload(huggingface_hub.constants)
    answers.append([c.ENDPOINT, c.HF_HOME, c.HF_HUB_CACHE, c.HF_HUB_OFFLINE, c.HF_HUB_DISABLE_XET])
json.dump(answers, sys.stdout)
"""


def test_hugging_faces_variables_mean_what_they_mean_to_its_library() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _ASK], input=json.dumps(HF_ENVIRONMENTS), capture_output=True, text=True, check=True
    )
    for env, theirs in zip(HF_ENVIRONMENTS, json.loads(told.stdout), strict=True):
        ours = Settings.load(env)
        flags = [ours.hf_hub_offline, ours.hf_hub_disable_xet]
        assert [ours.hf_endpoint, str(ours.hf_home), str(ours.hf_hub_cache), *flags] == theirs, env


def test_without_an_argument_the_processs_own_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MLX_MANAGER_PORT", "4711")
    assert Settings.load().port == 4711


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_the_readme_documents_it(setting: Setting) -> None:
    section = README.read_text(encoding="utf-8").partition("\n## Settings\n")[2].partition("\n## ")[0]
    if setting.variable.startswith("HF_"):
        # Theirs, and told in one sentence.
        assert f"`{setting.variable}`" in section
        return
    rows = [line for line in section.splitlines() if line.startswith(f"| `{setting.variable}` |")]
    assert len(rows) == 1, "one row of the table"
    _, _, default, meaning, _ = (cell.strip() for cell in rows[0].split("|"))
    assert default.replace("`", "") == setting.default_text
    assert meaning


def test_the_readme_documents_nothing_else() -> None:
    named = set(re.findall(r"`(MLX_MANAGER_[A-Z_]+)`", README.read_text(encoding="utf-8")))
    assert named == {setting.variable for setting in SETTINGS if setting.variable.startswith("MLX_")}
