/* SPDX-License-Identifier: MIT */
/*
 * Numbers at any address in a byte order of their own: little endian in our files, big endian in
 * QEMU's stream. The le*_t types are for structures on disk: they cannot be used unconverted.
 */
#ifndef ROUSE_BASE_ENDIAN_H
#define ROUSE_BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

typedef struct {
	uint16_t raw;
} le16_t;
typedef struct {
	uint32_t raw;
} le32_t;
typedef struct {
	uint64_t raw;
} le64_t;

static inline uint16_t le16_get(le16_t v)
{
	return le16toh(v.raw);
}
static inline uint32_t le32_get(le32_t v)
{
	return le32toh(v.raw);
}
static inline uint64_t le64_get(le64_t v)
{
	return le64toh(v.raw);
}
static inline le16_t le16_make(uint16_t v)
{
	return (le16_t){htole16(v)};
}
static inline le32_t le32_make(uint32_t v)
{
	return (le32_t){htole32(v)};
}
static inline le64_t le64_make(uint64_t v)
{
	return (le64_t){htole64(v)};
}

static inline uint16_t be16_load(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return be16toh(v);
}

static inline uint32_t be32_load(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline uint64_t be64_load(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static inline void be16_store(void *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void be32_store(void *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void be64_store(void *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

#endif
