"""The records of a zip file, as the format lays them out."""

from __future__ import annotations

import struct

LOCAL = struct.Struct("<4s5H3I2H")  # magic, version, flags, method, time, date, crc, size, size, name, extra
# magic, made by, version, flags, method, time, date, crc, size, size, name, extra, comment, disk, attributes,
# attributes, header offset
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")  # magic, disk, disk, entries, entries, size, offset, comment
LOCATOR = struct.Struct("<4sIQI")  # magic, disk, offset of END64, disks
END64 = struct.Struct("<4sQ2H2I4Q")  # magic, size, made by, version, disk, disk, entries, entries, size, offset
