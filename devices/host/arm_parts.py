"""ARM cores by the numbers in /proc/cpuinfo: (CPU implementer, CPU part) → name and class of ``classes.toml``.

Source: arch/arm64/include/asm/cputype.h of Linux 6.12.
"""

from __future__ import annotations

PARTS: dict[tuple[int, int], tuple[str, str]] = {
    (0x41, 0xD03): ("Cortex-A53", "arm-small"),
    (0x41, 0xD05): ("Cortex-A55", "arm-small"),
    (0x41, 0xD08): ("Cortex-A72", "arm-old"),
    (0x41, 0xD09): ("Cortex-A73", "arm-old"),
    (0x41, 0xD0A): ("Cortex-A75", "arm-old"),
    (0x41, 0xD0B): ("Cortex-A76", "arm-mid"),
    (0x41, 0xD0C): ("Neoverse N1", "arm-mid"),
    (0x41, 0xD0D): ("Cortex-A77", "arm-mid"),
    (0x41, 0xD41): ("Cortex-A78", "arm-mid"),
    (0x41, 0xD42): ("Cortex-A78AE", "arm-mid"),
    (0x41, 0xD44): ("Cortex-X1", "arm-wide"),
    (0x41, 0xD40): ("Neoverse V1", "arm-wide-i8mm"),
    (0x41, 0xD49): ("Neoverse N2", "arm-mid-i8mm"),
    (0x41, 0xD4F): ("Neoverse V2", "arm-wide-i8mm"),
    (0x41, 0xD84): ("Neoverse V3", "arm-wide-i8mm"),
    (0x41, 0xD46): ("Cortex-A510", "arm-small"),
    (0x41, 0xD47): ("Cortex-A710", "arm-mid-i8mm"),
    (0x41, 0xD48): ("Cortex-X2", "arm-wide-i8mm"),
    (0x41, 0xD4D): ("Cortex-A715", "arm-mid-i8mm"),
    (0x41, 0xD4E): ("Cortex-X3", "arm-wide-i8mm"),
    (0x41, 0xD80): ("Cortex-A520", "arm-small"),
    (0x41, 0xD81): ("Cortex-A720", "arm-mid-i8mm"),
    (0x41, 0xD82): ("Cortex-X4", "arm-wide-i8mm"),
    (0x41, 0xD85): ("Cortex-X925", "arm-wide-i8mm"),
    (0x41, 0xD87): ("Cortex-A725", "arm-mid-i8mm"),
    (0x51, 0x001): ("Oryon", "arm-wide-i8mm"),
    (0xC0, 0xAC3): ("AmpereOne", "arm-mid-i8mm"),
}
CLASSES = dict(PARTS.values())
