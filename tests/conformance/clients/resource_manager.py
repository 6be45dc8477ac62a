"""What operators by any of the azure-mgmt packages have in common: tokens of ``muster token``, and JSON of models."""

import time
from typing import Any

from azure.core.credentials import AccessToken

SUBSCRIPTION = "5ca1ab1e-0000-0000-0000-000000000001"
GROUP = "line-a"


class TokenCredential:
    """What ``azure.identity`` has for real clouds."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        assert scopes == ("https://management.azure.com/.default",), scopes
        return AccessToken(self._token, int(time.time()) + 3600)


def plain(model: Any) -> Any:
    """The JSON of a model or of a list of them."""
    if model is None or hasattr(model, "as_dict"):
        return None if model is None else model.as_dict()
    return [plain(item) for item in model]
