"""What commands compute of privacy is cached where the tests of privacy cache it."""

from tests.privacy.conftest import accounting_cache, shared_cache

__all__ = ["accounting_cache", "shared_cache"]
