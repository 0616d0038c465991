"""How much a package may hold before it is refused.

Limits are counted on the bytes that really come, never on the sizes that a package states about itself.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for one package; each is the largest value that is still accepted.

    Args:
        max_package_bytes: The sealed package as it came.
        max_header_bytes: CMS structures before the content: recipients, algorithms, IV.
        max_files: Payload files, ``forsendelse.json`` among them.
        max_file_bytes: One unpacked payload file.
        max_total_bytes: All unpacked payload files together.
        max_directory_bytes: The zip's central directory.
        max_manifest_bytes: One unpacked manifest or signature under ``META-INF``.
    """

    max_package_bytes: int = 320 * MIB
    max_header_bytes: int = 64 * 1024
    max_files: int = 1000
    max_file_bytes: int = 256 * MIB
    max_total_bytes: int = 300 * MIB
    max_directory_bytes: int = MIB
    max_manifest_bytes: int = MIB


DEFAULT_LIMITS = Limits()
