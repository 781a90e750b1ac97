/* SPDX-License-Identifier: MIT */
/*
 * What an image says about the VM that it holds: JSON in its METADATA section, for people and for
 * restoring it without being told how QEMU was started.
 *
 *	{
 *	  "format": 1,
 *	  "vmm": "qemu",
 *	  "qemu_version": "7.2.22",
 *	  "machine": "pc-i440fx-7.2",          as the stream's configuration section names it
 *	  "vcpus": 2,                          0: not known
 *	  "ram_bytes": 1073741824,             of all RAM blocks, ROMs included
 *	  "memory_bytes": 1073741824,          of the guest, as query-memory-size-summary counts
 *	  "was_running": true,                 whether it ran when the save began
 *	  "kept_running": false,               whether it went on after its checkpoint
 *	  "saved_at": "2024-05-17T09:30:00Z",  UTC
 *	  "executable": "/usr/bin/qemu-system-x86_64",
 *	  "cwd": "/home/ann",                  relative names in the command line begin there
 *	  "command_line": ["qemu-system-x86_64", "-m", "1024"],
 *	  "disks": [{"device": "ide0-hd0", "node": "#block123", "file": "/vm/a.qcow2",
 *	             "format": "qcow2", "overlay": "/vm/a.rouse-4f2a.qcow2"}],
 *	  "media": [{"device": "ide1-cd0", "node": "#block321", "file": "/iso/b.iso",
 *	             "format": "raw"}]         what the guest could only read: discs, firmware
 *	}
 *
 * Only "format" must be there. A reader ignores members that it does not know; "format" changes
 * when ignoring them would be wrong. "overlay" is there if the VM went on in an overlay of its own:
 * "file" is then the disk as it was at the checkpoint.
 */
#ifndef ROUSE_API_METADATA_H
#define ROUSE_API_METADATA_H

#include <rouse.h>

#define ROUSE_METADATA_FORMAT 1
/* Limits on untrusted input; the text as a whole has ROUSE_IMAGE_MAX_METADATA. */
#define ROUSE_METADATA_MAX_ARGUMENTS 8192u
#define ROUSE_METADATA_MAX_DISKS 1024u

/** A disk, or a medium that can only be read. Strings may be NULL: not known. */
struct rouse_metadata_disk {
	char *device, *node, *file, *format;
	char *overlay; /**< NULL if there is none */
};

/** Zero-initialise it; strings and arrays are malloc'ed and its own. NULL or 0: not known. */
struct rouse_metadata {
	char *vmm;
	char *qemu_version;
	char *machine;
	char *executable;
	char *cwd;
	char *saved_at;
	char **command_line; /**< with a NULL behind it; or NULL */
	size_t argument_count;
	struct rouse_metadata_disk *disks;
	size_t disk_count;
	struct rouse_metadata_disk *media; /**< that the guest cannot write to */
	size_t medium_count;
	uint64_t ram_bytes;
	uint64_t memory_bytes;
	unsigned int vcpus;
	bool was_running;
	bool kept_running;
};

/** Frees what @metadata holds and zeroes it. */
void rouse_metadata_finish(struct rouse_metadata *metadata);

/**
 * Makes the JSON text; the caller frees *text. A command line that is not UTF-8 is left out: it
 * could not be written so that it comes back the same. -ENOMEM, -EFBIG (beyond
 * ROUSE_IMAGE_MAX_METADATA).
 */
int rouse_metadata_build(const struct rouse_metadata *metadata, char **text, size_t *size);

/**
 * The file of a disk, relative to the VM's working directory or absolute; the caller frees it.
 * NULL: it is none (a protocol, a descriptor that was handed over), or no memory.
 */
char *rouse_metadata_disk_file(const struct rouse_metadata_disk *disk);

/**
 * A disk or medium that the command line does not name: an overlay that the VM got while it ran,
 * one that was plugged, a disc that was changed. Started by that command it would have another.
 * NULL: there is none, or it cannot be told.
 */
const struct rouse_metadata_disk *rouse_metadata_unnamed_disk(
	const struct rouse_metadata *metadata);

/**
 * Parses untrusted JSON text of @size bytes. Free with rouse_metadata_finish(), whatever it
 * returns. -EUCLEAN: not such metadata; -EPROTONOSUPPORT: of a newer format; -ENOMEM.
 */
int rouse_metadata_parse(
	const char *text, size_t size, struct rouse_metadata *metadata, struct rouse_error *error);

#endif
