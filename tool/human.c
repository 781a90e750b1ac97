/* SPDX-License-Identifier: MIT */
/* Numbers as people read them. */
#include "tool.h"

struct human human_bytes(uint64_t bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	struct human human;
	double number = (double)bytes;
	size_t unit = 0;

	while (number >= 1023.95 && unit < 4) {
		number /= 1024;
		unit++;
	}
	(void)snprintf(human.text, sizeof(human.text), unit > 0 ? "%.1f %s" : "%.0f %s", number,
		units[unit]);
	return human;
}

struct human human_us(double us)
{
	struct human human;

	if (us < 1000)
		(void)snprintf(human.text, sizeof(human.text), "%.0f us", us);
	else if (us < 10e6)
		(void)snprintf(human.text, sizeof(human.text), "%.1f ms", us / 1e3);
	else
		(void)snprintf(human.text, sizeof(human.text), "%.2f s", us / 1e6);
	return human;
}
