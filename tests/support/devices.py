"""Reports of `mx.device_info()` on machines that are not at hand."""

from __future__ import annotations

M1 = {
    "device_name": "Apple M1",
    "architecture": "applegpu_g13g",
    "max_buffer_length": 8589934592,
    "max_recommended_working_set_size": 11453251584,
    "memory_size": 17179869184,
    "resource_limit": 499000,
}


M4_PRO = {
    "device_name": "Apple M4 Pro",
    "architecture": "applegpu_g16s",
    "max_buffer_length": 30150672384,
    "max_recommended_working_set_size": 40200896512,
    "memory_size": 51539607552,
    "resource_limit": 499000,
}


M5_MAX = {
    "device_name": "Apple M5 Max",
    "architecture": "applegpu_g17s",
    "max_buffer_length": 86586540032,
    "max_recommended_working_set_size": 115448725504,
    "memory_size": 137438953472,
    "resource_limit": 499000,
}


# A virtual machine on a Mac, such as GitHub's runners, reports no generation.
VIRTUAL_MAC = {**M1, "device_name": "Apple Paravirtual device", "architecture": "Apple Paravirtual device"}


H100 = {
    "device_name": "NVIDIA H100 80GB HBM3",
    "architecture": "sm_90",
    "compute_capability_major": 9,
    "compute_capability_minor": 0,
    "total_memory": 85520809984,
    "free_memory": 84000000000,
}


T4 = {**H100, "device_name": "Tesla T4", "architecture": "sm_75", "compute_capability_major": 7}


CPU = {"device_name": "AMD EPYC", "architecture": "x86_64"}
