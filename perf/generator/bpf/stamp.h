/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */

// What a measurement's frame may carry at the beginning of its payload. The
// generator writes it, the sink reads it; everything is in network byte order.

#ifndef WEIR_STAMP_H
#define WEIR_STAMP_H

#include <linux/types.h>

#define STAMP_MAGIC 0x77656972 // "weir"

struct stamp {
	__be32 magic;
	__be32 number; // of the generator's frames, from 1 on
	__be64 sent; // when, by bpf_ktime_get_ns: CLOCK_MONOTONIC
} __attribute__((packed));

#endif
