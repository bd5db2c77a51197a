"""Training environments. Importing this package registers them with Gymnasium, where it is
installed.
"""

import importlib.util

if importlib.util.find_spec("gymnasium"):
    from gymnasium.envs.registration import register, registry

    if "reverie/Meadow-v0" not in registry:
        register(
            id="reverie/Meadow-v0",
            entry_point="reverie.envs.meadow.env:MeadowEnv",
            disable_env_checker=True,
            order_enforce=False,
        )
