"""Everything that `reverie serve` can be told: flags, then REVERIE_* in the environment, then a
TOML file, then what stands here. Checked when it is read; an unknown name in flags or file is an
error.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from reverie.core import ReverieError
from reverie.server.limits import SocketLimits

_STRICT = ConfigDict(extra="forbid", frozen=True)


class EngineSettings(BaseModel):
    """One engine process. world: a bundled name, a folder, or hf://user/world. device: "cpu",
    "cpu:0-3" for some of its cores, "cuda:1". runtime: openvino, onnx or torch; the first that can
    if not given. players: that may hold a place at the same time, at most; fewer where the measured
    costs say so. threads: of one pass. standby: keep a second process, loaded and idle, that takes
    the place of this one if it dies.
    """

    model_config = _STRICT
    world: str = "meadow"
    device: str = "cpu"
    runtime: Literal["openvino", "onnx", "torch"] | None = None
    players: Annotated[int, Field(ge=1, le=256)] = 8
    threads: Annotated[int | None, Field(ge=1)] = None
    standby: bool = True


class AccessSettings(BaseModel):
    """keys: file of API keys (`reverie key`); with one, nobody plays without a token. signing_key:
    PEM file that tokens are signed with; beside the keys if not given. open: play without keys on
    an address that others can reach, too.
    """

    model_config = _STRICT
    keys: Path | None = None
    signing_key: Path | None = None
    open: bool = False


class SessionSettings(BaseModel):
    """How long a session's place waits for its player; see `SocketLimits`. time_limit_s: of play,
    none if not given. resume_s: a lost connection may come back. drain_s: players may go on when
    the server closes.
    """

    model_config = _STRICT
    time_limit_s: Annotated[float | None, Field(gt=0)] = None
    resume_s: Annotated[float, Field(gt=0)] = 30.0
    silent_s: Annotated[float, Field(gt=0)] = 1.25
    pause_after_s: Annotated[float, Field(gt=0)] = 300.0
    evict_after_s: Annotated[float, Field(gt=0)] = 30.0
    idle_s: Annotated[float, Field(gt=0)] = 900.0
    max_saved_bytes: Annotated[int, Field(ge=1)] = 16_000_000
    max_kept: Annotated[int, Field(ge=1)] = 256
    drain_s: Annotated[float, Field(ge=0)] = 30.0

    def limits(self) -> SocketLimits:
        """As sockets want them."""
        values: dict[str, Any] = self.model_dump(exclude={"drain_s", "time_limit_s"})
        limit_s = math.inf if self.time_limit_s is None else self.time_limit_s
        return SocketLimits(**values, time_limit_s=limit_s)


class Settings(BaseSettings):
    """host, port: to listen on; without a port the first free one from 8137. trusted_proxies:
    addresses whose X-Forwarded-For is believed. quality: of JPEGs. price_per_hour: dollars, of a
    device, to reckon with. usage_file: gets a line of JSON for each session that ended. log: form
    of the log on standard error.
    """

    model_config = SettingsConfigDict(
        env_prefix="REVERIE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )
    host: str = "127.0.0.1"
    port: int | None = None
    engines: tuple[EngineSettings, ...] = (EngineSettings(),)
    sessions: SessionSettings = SessionSettings()
    access: AccessSettings = AccessSettings()
    trusted_proxies: tuple[str, ...] = ()
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    price_per_hour: Annotated[float | None, Field(ge=0)] = None
    usage_file: Path | None = None
    log: Literal["text", "json"] = "text"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read_settings(file: Path | None, flags: dict[str, Any]) -> Settings:
    """flags: as far as they were given, nested like the file. Raises ReverieError: one line that
    names the setting and what was expected.
    """
    if file is not None and not file.is_file():
        raise ReverieError(f"{file} is not a file; expected settings as TOML")

    class Read(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        return Read(**flags)
    except ValidationError as error:
        raise ReverieError(_line(error, file)) from None
    except tomllib.TOMLDecodeError as error:
        raise ReverieError(f"{file} is not TOML: {error}") from None
    except SettingsError as error:  # an environment variable that is not JSON where it must be
        raise ReverieError(str(error).splitlines()[0]) from None


def _line(error: ValidationError, file: Path | None) -> str:
    first, *others = error.errors()
    name = ".".join(str(part) for part in first["loc"])
    where = f"{file}: " if file is not None else ""
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(_known(first["loc"][:-1]))
        return f"{where}unknown setting {name!r}; expected one of {known}{more}"
    what = first["msg"][0].lower() + first["msg"][1:]
    return f"{where}{name} is {first['input']!r:.60}: {what}{more}"


def _known(path: tuple[int | str, ...]) -> list[str]:
    """Names of the settings at a place in them."""
    places = {
        "engines": EngineSettings,
        "sessions": SessionSettings,
        "access": AccessSettings,
    }
    model = places[str(path[0])] if path else Settings
    return sorted(model.model_fields)
