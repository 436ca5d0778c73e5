"""Mistakes in encrypted lanes: who is let in, what is trusted, and what is asked for."""

from __future__ import annotations

from tests.mutants import Mutant

_HANDSHAKE = ("tests/unit/fabric/test_secret_handshake.py",)
_STRANGERS = ("tests/faults/test_hostile_secret.py",)
_PERMISSION = ("tests/unit/rpmemd/test_permission.py",)
_SESSIONS = ("tests/integration/test_encrypted.py",)

MUTANTS = (
    Mutant(
        "a client accepts any certificate",
        "new_context",
        "SSL_CTX_set_verify(made, RPMEM_VERIFY_PEER, NULL)",
        "SSL_CTX_set_verify(made, RPMEM_VERIFY_NONE, NULL)",
        _HANDSHAKE,
    ),
    Mutant(
        "an earlier TLS will do",
        "new_context",
        "if (SSL_CTX_ctrl(made, RPMEM_CTRL_SET_MIN_PROTO_VERSION, RPMEM_TLS1_3, NULL) != 1",
        "if (SSL_CTX_ctrl(made, RPMEM_CTRL_SET_MIN_PROTO_VERSION, 0x0303, NULL) != 1",
        _HANDSHAKE,
    ),
    Mutant(
        "nobody asks whether the key was used",
        "Handshake.proceed",
        "if not SSL_session_reused(self.c.ssl):",
        "if False:",
        _HANDSHAKE,
    ),
    Mutant(
        "nobody asks which TLS it has become",
        "Handshake.proceed",
        "if SSL_version(self.c.ssl) != RPMEM_TLS1_3:",
        "if False:",
        _HANDSHAKE,
    ),
    Mutant(
        "a spent key opens a lane",
        "lane_named",
        "if lane < ring.count and ring.there[lane] else -1",
        "if lane < ring.count else -1",
        _HANDSHAKE,
    ),
    Mutant(
        "the name of another session is as good",
        "lane_named",
        "if strncmp(identity, ring.prefix, length) or not identity[length]:",
        "if strncmp(identity, ring.prefix, 7) or not identity[length]:",
        _HANDSHAKE,
    ),
    Mutant(
        "what follows the number is not looked at",
        "lane_named",
        "if digit[0] < c'0' or digit[0] > c'9' or digit - identity > <ssize_t> length + 5:\n"
        "            return -1",
        "if digit[0] < c'0' or digit[0] > c'9' or digit - identity > <ssize_t> length + 5:\n"
        "            break",
        _STRANGERS,
    ),
    Mutant(
        "a token is good for two lanes",
        "Keyring.spend",
        "self.c.there[lane] = 0",
        "pass",
        _HANDSHAKE,
    ),
    Mutant(
        "a key is never renewed",
        "write_record",
        "if tls.written == tls.renew_every:",
        "if False:",
        _HANDSHAKE,
    ),
    Mutant(
        "keys are not renewed again",
        "write_record",
        "tls.written = 0",
        "pass",
        _HANDSHAKE,
    ),
    Mutant(
        "the last byte is reported before it has left",
        "tls_send",
        "return taken - 1",
        "return taken",
        _HANDSHAKE,
    ),
    Mutant(
        "the held byte is sent again",
        "tls_send",
        "taken = at = 1\n        left -= 1",
        "taken = at = 0",
        _HANDSHAKE,
    ),
    Mutant(
        "half a record is given to OpenSSL",
        "find_whole",
        "if tls.end - tls.whole < length:\n            return",
        "if tls.end - tls.whole < length:\n            length = tls.end - tls.whole",
        _HANDSHAKE,
    ),
    Mutant(
        "an end is not remembered",
        "fill",
        "tls.error = errno if n < 0 else EPIPE\n    return -tls.error",
        "return 0",
        _HANDSHAKE,
    ),
    Mutant(
        "who only repeats a hello spends the token",
        "SecretCaller.read",
        "if not self.secret.proceed():\n                return None",
        "if not self.secret.proceed():\n"
        "                self._ring.spend(max(self.secret.lane, 0))\n"
        "                return None",
        _STRANGERS,
    ),
    Mutant(
        "lanes are plain where libssl is missing",
        "Fabric.secure",
        "        need_encryption()\n",
        "        try:\n"
        "            need_encryption()\n"
        "        except ImportError:\n"
        "            return\n",
        _SESSIONS,
    ),
    Mutant(
        "auto asks for nothing",
        "asked",
        "return encrypts(provider)",
        'return encrypts(provider) and wanted == "on"',
        _SESSIONS,
    ),
    Mutant(
        "on lets providers pass that cannot",
        "asked",
        'if not encrypts(provider) and wanted == "on":',
        "if False:",
        _SESSIONS,
    ),
    Mutant(
        "on lets PMDK's protocol pass",
        "refuse_pmdk",
        'if wanted == "on" and not target.is_local:',
        "if False:",
        _SESSIONS,
    ),
    Mutant(
        "required is a wish",
        "allowed_providers",
        'if config.encryption == "required":',
        "if False:",
        (*_SESSIONS, *_PERMISSION),
    ),
    Mutant(
        "what was switched off is done all the same",
        "allowed_providers",
        'if request.encrypt and config.encryption == "off":',
        "if False:",
        (*_SESSIONS, *_PERMISSION),
    ),
)
