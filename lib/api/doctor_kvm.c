/* SPDX-License-Identifier: MIT */
/*
 * Whether KVM works. A /dev/kvm that opens says little: where the machine is virtual itself it may
 * hang on the first instruction, or run simple code and fail to boot a kernel.
 */
#include "api/doctor_kvm.h"

#include "api/doctor_child.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define TINY_TIMEOUT_MS 3000
#define BOOT_TIMEOUT_MS 20000
#define GUEST_ADDRESS 0x1000u
#define PAGE_BYTES 4096u
#define PORT 0x10
#define LETTER 'R'

/* mov al, LETTER; out PORT, al; hlt */
static const unsigned char instructions[] = {0xb0, LETTER, 0xe6, PORT, 0xf4};

/* How far the tiny VM came: the exit code of the child. */
enum step { TINY_WORKS, TINY_OPEN, TINY_VERSION, TINY_VM, TINY_VCPU, TINY_RUN, TINY_WRONG };

static int set_registers(int vcpu)
{
	struct kvm_sregs special;
	struct kvm_regs registers = {.rip = GUEST_ADDRESS, .rflags = 2};

	if (ioctl(vcpu, KVM_GET_SREGS, &special) < 0)
		return -1;
	special.cs.base = 0;
	special.cs.selector = 0;
	if (ioctl(vcpu, KVM_SET_SREGS, &special) < 0)
		return -1;
	return ioctl(vcpu, KVM_SET_REGS, &registers);
}

static int make_vm(int kvm, void *memory)
{
	struct kvm_userspace_memory_region region = {.guest_phys_addr = GUEST_ADDRESS,
		.memory_size = PAGE_BYTES,
		.userspace_addr = (uint64_t)(uintptr_t)memory};
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);

	if (vm < 0 || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return -1;
	return vm;
}

/* The letter comes out of the port, then the VM halts. */
static enum step run_vcpu(int vcpu, volatile struct kvm_run *run)
{
	const volatile unsigned char *data;

	if (ioctl(vcpu, KVM_RUN, 0) < 0)
		return TINY_RUN;
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT)
		return TINY_WRONG;
	data = (volatile unsigned char *)run + run->io.data_offset;
	if (*data != LETTER)
		return TINY_WRONG;
	if (ioctl(vcpu, KVM_RUN, 0) < 0)
		return TINY_RUN;
	return run->exit_reason == KVM_EXIT_HLT ? TINY_WORKS : TINY_WRONG;
}

/* In the child: its end closes and unmaps everything. */
static int tiny_vm(void *unused)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, vcpu, size;
	void *memory, *run;

	(void)unused;
	if (kvm < 0)
		return TINY_OPEN;
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return TINY_VERSION;
	memory = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return TINY_VM;
	memcpy(memory, instructions, sizeof(instructions));
	vm = make_vm(kvm, memory);
	if (vm < 0)
		return TINY_VM;
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vcpu < 0 || size < (int)sizeof(struct kvm_run) || set_registers(vcpu) < 0)
		return TINY_VCPU;
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return TINY_VCPU;
	return run_vcpu(vcpu, run);
}

static const char *tiny_problem(int result)
{
	switch (result) {
	case TINY_VERSION:
		return "its interface has another version";
	case TINY_VM:
		return "it cannot make a VM";
	case TINY_VCPU:
		return "it cannot make a vCPU";
	case TINY_RUN:
		return "it cannot run a vCPU";
	case TINY_WRONG:
		return "three instructions do not do what they should";
	case -ETIMEDOUT:
		return "three instructions do not end";
	default:
		return "trying three instructions failed";
	}
}

/* Without an initramfs a kernel boots up to here. */
#define LAST_WORDS "Unable to mount root fs"

static bool boots(const char *qemu, const char *kernel, char *detail, size_t room)
{
	const char *const argv[] = {qemu, "-accel", "kvm", "-m", "256", "-smp", "1", "-nodefaults",
		"-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel",
		kernel, "-append", "console=ttyS0 panic=-1", NULL};
	uint64_t begin_us = rouse_clock_us();
	char text[65536];
	int code = rouse_child_output(argv, LAST_WORDS, BOOT_TIMEOUT_MS, text, sizeof(text));
	bool booted = code == 0 && strstr(text, LAST_WORDS) != NULL;
	const char *line = strrchr(text, '\n');

	if (booted)
		(void)snprintf(detail, room, "runs instructions, and boots %s in %.1f s", kernel,
			(double)(rouse_clock_us() - begin_us) / 1e6);
	else if (code == -ETIMEDOUT)
		(void)snprintf(detail, room, "runs instructions, but has not booted %s within %d s",
			kernel, BOOT_TIMEOUT_MS / 1000);
	else if (code < 0)
		(void)snprintf(detail, room, "%s: %s", qemu, strerrordesc_np(-code));
	else
		(void)snprintf(detail, room, "runs instructions, but does not boot %s: %.120s",
			kernel, line != NULL && line[1] != '\0' ? line + 1 : text);
	detail[strcspn(detail, "\r\n")] = '\0';
	return booted;
}

static const char *cure_of(int open_errno)
{
	if (open_errno == EACCES || open_errno == EPERM)
		return "run as root or as a member of the group kvm";
	if (open_errno == ENOENT)
		return "virtualization by the processor, or nested by the host, with the module "
		       "kvm_intel or kvm_amd";
	return "a host whose virtualization works";
}

bool rouse_probe_kvm(
	const char *qemu, const char *kernel, char *detail, size_t room, const char **cure)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), result;

	if (kvm < 0) {
		(void)snprintf(detail, room, "/dev/kvm: %s", strerrordesc_np(errno));
		*cure = cure_of(errno);
		return false;
	}
	(void)close(kvm);
	*cure = cure_of(0);
	result = rouse_child_probe(tiny_vm, NULL, TINY_TIMEOUT_MS);
	if (result != TINY_WORKS) {
		(void)snprintf(detail, room, "/dev/kvm is there, but %s", tiny_problem(result));
		return false;
	}
	if (kernel != NULL)
		return boots(qemu, kernel, detail, room);
	(void)snprintf(detail, room, "runs a few instructions; no kernel was tried");
	return true;
}
