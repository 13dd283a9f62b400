"""Compatible endpoints that are well known: what the form suggests, and the operator may change."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.states import Auth


@dataclass(frozen=True, slots=True)
class Preset:
    """One suggestion; `base_url` is where it is usually found, `hint` what is good to know."""

    key: str
    label: str
    base_url: str
    auth: Auth = Auth.BEARER
    forwards_betas: bool = False
    model_map: tuple[tuple[str, str], ...] = ()
    hint: str = ""


LOCAL = (
    "Runs in your own network: PRIVATE_UPSTREAMS or ALLOW_LOOPBACK_UPSTREAMS must name it. Put the "
    "name of a model that it has behind each pattern."
)
ALL = (
    Preset(
        "openrouter",
        "OpenRouter",
        "https://openrouter.ai/api",
        forwards_betas=True,
        hint="Models are named maker/model there: map those that clients ask for by another name.",
    ),
    Preset(
        "zai",
        "Z.AI",
        "https://api.z.ai/api/anthropic",
        model_map=(("claude-haiku-*", "glm-5.3-flash"), ("claude-*", "glm-5.3")),
    ),
    Preset(
        "deepseek",
        "DeepSeek",
        "https://api.deepseek.com/anthropic",
        auth=Auth.API_KEY,
        model_map=(("claude-opus-*", "deepseek-v4-pro"), ("claude-*", "deepseek-flash")),
    ),
    Preset(
        "kimi",
        "Kimi (Moonshot)",
        "https://api.moonshot.ai/anthropic",
        model_map=(("claude-*", "kimi-k3"),),
        hint="In China the address is https://api.moonshot.cn/anthropic.",
    ),
    Preset(
        "minimax",
        "MiniMax",
        "https://api.minimax.io/anthropic",
        auth=Auth.API_KEY,
        model_map=(("claude-*", "MiniMax-M3"),),
        hint="In China the address is https://api.minimaxi.com/anthropic.",
    ),
    Preset(
        "ollama",
        "Ollama (local)",
        "http://localhost:11434",
        auth=Auth.NONE,
        hint=LOCAL,
    ),
    Preset(
        "ollama_cloud",
        "Ollama (cloud)",
        "https://ollama.com",
        hint="Put the name of a cloud model behind each pattern, as in claude-* = name.",
    ),
    Preset("llama_cpp", "llama.cpp", "http://localhost:8080", auth=Auth.NONE, hint=LOCAL),
    Preset("vllm", "vLLM", "http://localhost:8000", auth=Auth.NONE, hint=LOCAL),
)
PRESETS = {preset.key: preset for preset in ALL}
