/* SPDX-License-Identifier: MIT */
/* The agent: moves the memory aside, and back. */
#include "wset/trace_agent.h"

/* ---- Arming -------------------------------------------------------------------------------- */

static int64_t open_uffd(uint64_t features, int32_t *fd)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int64_t code = call3(SYS_userfaultfd, FLAGS_CLOEXEC | FLAGS_NONBLOCK, 0, 0);

	if (code < 0)
		return code;
	*fd = (int32_t)code;
	return control(*fd, UFFDIO_API, &api);
}

static bool has_kind(const struct agent *agent, uint32_t kind)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		if (agent->self.areas[i].kind == kind)
			return true;
	}
	return false;
}

/* EVENT_FORK wants a privilege; without it only memory that no child has can be traced. */
static bool fork_matters(const struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		if (agent->self.areas[i].kind == TRACE_KIND_PRIVATE &&
			agent->self.areas[i].dont_fork == 0)
			return true;
	}
	return false;
}

static bool open_uffds(struct agent *agent)
{
	const uint64_t private_features = UFFD_FEATURE_MOVE | UFFD_FEATURE_THREAD_ID |
					  UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP |
					  UFFD_FEATURE_EVENT_UNMAP;
	const uint64_t shared_features =
		UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_THREAD_ID;
	int32_t *uffd = agent->record->uffd;
	int64_t code = 0;

	if (has_kind(agent, TRACE_KIND_PRIVATE))
		code = open_uffd(
			private_features | (fork_matters(agent) ? UFFD_FEATURE_EVENT_FORK : 0),
			&uffd[TRACE_KIND_PRIVATE]);
	agent->self.uffd = uffd[TRACE_KIND_PRIVATE];
	if (code < 0) {
		fail(agent, agent->self.uffd < 0 ? TRACE_STEP_USERFAULTFD : TRACE_STEP_FEATURES,
			code);
		return false;
	}
	if (has_kind(agent, TRACE_KIND_SHARED))
		code = open_uffd(shared_features, &uffd[TRACE_KIND_SHARED]);
	if (code < 0)
		fail(agent,
			uffd[TRACE_KIND_SHARED] < 0 ? TRACE_STEP_USERFAULTFD : TRACE_STEP_FEATURES,
			code);
	return code >= 0;
}

/*
 * A scratch area as large as the area, and as far from a border of huge pages, so that they move
 * whole. What is left of the mapping in front is given back.
 */
static bool map_scratch(struct agent *agent, struct trace_area *area)
{
	const uint64_t room = area->bytes + HUGE;
	int64_t got = call6(SYS_mmap, 0, room, 3, 0x4022, (uint64_t)-1, 0); /* NORESERVE */
	uint64_t start, before;

	if (is_error(got)) {
		fail(agent, TRACE_STEP_SCRATCH, got);
		return false;
	}
	start = (uint64_t)got;
	before = (area->ram - start) % HUGE;
	if (before > 0)
		(void)call3(SYS_munmap, start, before, 0);
	if (room > before + area->bytes)
		(void)call3(
			SYS_munmap, start + before + area->bytes, room - before - area->bytes, 0);
	area->scratch = start + before;
	(void)call3(SYS_madvise, area->scratch, area->bytes, DONTFORK);
	/* Of the guest's memory, which QEMU may keep out of its cores (dump-guest-core=off). */
	(void)call3(SYS_madvise, area->scratch, area->bytes, DONTDUMP);
	return true;
}

static bool register_range(
	struct agent *agent, int uffd, uint64_t start, uint64_t bytes, uint64_t mode)
{
	struct uffdio_register order = {.range = {.start = start, .len = bytes}, .mode = mode};
	int64_t code = control(uffd, UFFDIO_REGISTER, &order);

	if (code < 0)
		fail(agent, TRACE_STEP_REGISTER, code);
	return code >= 0;
}

static bool register_ram(struct agent *agent, struct trace_area *area, uint64_t mode)
{
	area->registered = register_range(
		agent, agent->record->uffd[area->kind], area->ram, area->bytes, mode);
	return area->registered != 0;
}

static bool map_scratches(struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		struct trace_area *area = &agent->self.areas[i];

		if (area->kind == TRACE_KIND_PRIVATE && !map_scratch(agent, area))
			return false;
	}
	return true;
}

static bool register_private(struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		struct trace_area *area = &agent->self.areas[i];

		if (area->kind != TRACE_KIND_PRIVATE)
			continue;
		agent->scratch_registered = true;
		if (!register_range(agent, agent->self.uffd, area->scratch, area->bytes,
			    UFFDIO_REGISTER_MODE_MISSING) ||
			!register_ram(agent, area, UFFDIO_REGISTER_MODE_MISSING))
			return false;
	}
	return true;
}

/* Pages that cannot be moved are left, and not watched. */
static uint64_t leave_pages(struct agent *agent, uint64_t page, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		set_bit(agent->self.gone, page + i);
	agent->record->counters.skipped += pages;
	return pages;
}

/*
 * A run of pages whose first, at a border of huge pages, is in use. If it is a huge page, no part
 * of it may be moved alone: for that the kernel has to split it, which it cannot while the page is
 * pinned. Linux 6.18.44 says EBUSY; the move_pages() of others (mm/userfaultfd.c) tries again and
 * again, and returns only when the process is killed. So all up to the next border is left.
 */
static uint64_t leave_huge(struct agent *agent, uint64_t page, uint64_t pages, unsigned int *again)
{
	/* Most are in use by a read or write of the guest that will have ended in a moment. */
	if (agent->naps < BUSY_NAPS && (*again)++ < BUSY_TRIES) {
		agent->naps++;
		nap();
		return 0;
	}
	*again = 0;
	return leave_pages(agent, page, pages < HUGE / PAGE ? pages : HUGE / PAGE);
}

/* Moves pages aside, as many of a run as one call takes; how many are settled. 0: not now. */
static uint64_t move_aside(struct agent *agent, const struct trace_area *area, uint64_t page,
	uint64_t pages, unsigned int *again)
{
	const uint64_t offset = (page - area->first_page) * PAGE;
	uint64_t moved;
	int64_t code = agent_move(
		agent->self.uffd, area->scratch + offset, area->ram + offset, pages * PAGE, &moved);

	if (moved > 0)
		return moved / PAGE;
	if (code == -E_AGAIN && (*again)++ < TRIES)
		return 0;
	if ((code == -E_BUSY || code == -E_AGAIN) && pages > 1 && (area->ram + offset) % HUGE == 0)
		return leave_huge(agent, page, pages, again);
	*again = 0;
	if (pages > 1)
		code = agent_move(
			agent->self.uffd, area->scratch + offset, area->ram + offset, PAGE, &moved);
	if (code < 0 && code != -E_NOENT) /* ENOENT: a hole */
		return leave_pages(agent, page, 1);
	return 1;
}

/* How much to move at once from @address on: up to a border of huge pages, which move whole. */
static uint64_t piece(uint64_t address, uint64_t left)
{
	const uint64_t bytes = (address + CHUNK) / HUGE * HUGE - address;

	return left < bytes ? left : bytes;
}

/* These pages stay where they are, and are not watched; but those with a bit were seen already. */
static void count_left(struct agent *agent, uint64_t page, uint64_t end)
{
	uint64_t pages;

	while (next_clear(agent->self.gone, &page, end, &pages)) {
		agent->record->counters.skipped += pages;
		page += pages;
	}
}

/* The list of areas may move meanwhile; then there is nothing more to arm. */
static void arm_private(struct agent *agent, uint32_t index)
{
	unsigned int again = 0;

	while (!agent->hurry) {
		struct trace_area *area = &agent->self.areas[index];
		const uint64_t left = area->bytes - area->armed_bytes;
		uint64_t page = area->first_page + area->armed_bytes / PAGE, pages;
		const uint64_t end = page + piece(area->ram + area->armed_bytes, left) / PAGE;

		if (left == 0)
			break;
		/* Before they go: what happens to them meanwhile happens to armed pages. */
		area->armed_bytes += (end - page) * PAGE;
		/* A page that was touched meanwhile must stay: so the bits are looked at anew. */
		while (!agent->hurry && next_clear(agent->self.gone, &page, end, &pages)) {
			const uint64_t settled = move_aside(agent, area, page, pages, &again);

			page += settled;
			if (settled == 0)
				agent_serve_private(agent);
		}
		if (agent->hurry)
			count_left(agent, page, end);
		agent_serve(agent);
	}
}

/* What arming did not come to, because it was cut short. Areas may be in pieces by then. */
static void count_unarmed(struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		const struct trace_area *area = &agent->self.areas[i];

		if (area->kind == TRACE_KIND_PRIVATE)
			count_left(agent, area->first_page + area->armed_bytes / PAGE,
				area->first_page + area->bytes / PAGE);
	}
}

/*
 * Whether UFFDIO_CONTINUE finds all of that in one mapping of shmem with a userfaultfd. The errors
 * (Linux 5.14 to 6.18, mm/userfaultfd.c):
 *
 *	ENOENT  not mapped, not registered, or it goes beyond one mapping
 *	EINVAL  registered, but not shmem
 *	EEXIST  it is what we look for; its first page is mapped
 *	EFAULT  likewise; its first page is a hole of the file
 *	EAGAIN  not now; or likewise, and a part was mapped (then the result says how much)
 */
static bool continues(int uffd, uint64_t start, uint64_t bytes)
{
	for (unsigned int i = 0; i < TRIES; i++) {
		struct uffdio_continue order = {.range = {.start = start, .len = bytes}};
		int64_t code = control(uffd, UFFDIO_CONTINUE, &order);

		if (code != -E_AGAIN || order.mapped > 0)
			return code == 0 || code == -E_AGAIN || code == -E_EXIST ||
			       code == -E_FAULT;
	}
	return false;
}

/*
 * Whether unmapping it loses nothing: the process may have put private memory there. It is one
 * mapping of shmem, registered, with us (EBUSY otherwise; what is ours stays as it is), and shared:
 * mremap(2) from no bytes doubles shared mappings only.
 */
static bool is_ours(int uffd, uint64_t start, uint64_t bytes)
{
	struct uffdio_register order = {.range = {.start = start, .len = bytes},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
	int64_t twin;

	/* First one page: with that mapped the whole ends at once, and maps no more. */
	if (!continues(uffd, start, PAGE) || !continues(uffd, start, bytes) ||
		control(uffd, UFFDIO_REGISTER, &order) < 0)
		return false;
	twin = call6(SYS_mremap, start, 0, PAGE, 1, 0, 0); /* MREMAP_MAYMOVE */
	if (is_error(twin))
		return false;
	(void)call3(SYS_munmap, (uint64_t)twin, PAGE, 0);
	return true;
}

/* What is not ours any more is left alone. */
static bool arm_shared(struct agent *agent, struct trace_area *area)
{
	const int uffd = agent->record->uffd[TRACE_KIND_SHARED];

	while (area->armed_bytes < area->bytes) {
		const uint64_t start = area->ram + area->armed_bytes;
		uint64_t bytes = area->bytes - area->armed_bytes;
		int64_t code;

		if (bytes > CHUNK)
			bytes = CHUNK;
		if (is_ours(uffd, start, bytes)) {
			code = call3(SYS_madvise, start, bytes, DONTNEED);
			if (code < 0) {
				fail(agent, TRACE_STEP_UNMAP, code);
				return false;
			}
		} else {
			agent->record->counters.skipped += bytes / PAGE;
		}
		area->armed_bytes += bytes;
		agent_serve(agent);
	}
	return true;
}

/* One after the other, so that little time goes by between a look and what is done. */
static bool arm_all_shared(struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		struct trace_area *area = &agent->self.areas[i];

		if (area->kind == TRACE_KIND_SHARED &&
			(!register_ram(agent, area,
				 UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR) ||
				!arm_shared(agent, area)))
			return false;
	}
	return true;
}

bool agent_arm(struct agent *agent)
{
	struct trace_record *record = agent->record;

	set_state(record, TRACE_STATE_ARMING);
	record->arm_begin_ns = now_ns();
	agent->looked_ns = record->arm_begin_ns;
	agent->gap_ns = &record->arm_gap_ns;
	if (!open_uffds(agent) || !map_scratches(agent) || !arm_all_shared(agent) ||
		!register_private(agent))
		return false;
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		if (agent->self.areas[i].kind == TRACE_KIND_PRIVATE)
			arm_private(agent, i);
	}
	count_unarmed(agent);
	agent_unregister_scratch(agent);
	agent->gap_ns = NULL;
	record->arm_end_ns = now_ns();
	return true;
}

/* ---- Disarming ----------------------------------------------------------------------------- */

/* A page that could not be moved back. False: not now. */
static bool put_back_one(struct agent *agent, uint64_t to, uint64_t from)
{
	uint64_t moved;
	int64_t code = agent_move(agent->self.uffd, to, from, PAGE, &moved);

	/* EEXIST: RAM has a page already, and that one is right. ENOENT: a hole. */
	if (code == 0 || code == -E_EXIST || code == -E_NOENT)
		return true;
	code = agent_put_back_copy(agent, to, from);
	agent->record->counters.copied += code == 0;
	return code != -E_AGAIN;
}

/* Moves pages back, as many of a run as one call takes; how many are settled. 0: not now. */
static uint64_t move_back(
	struct agent *agent, const struct trace_area *area, uint64_t page, uint64_t pages)
{
	const uint64_t offset = (page - area->first_page) * PAGE;
	uint64_t moved;
	int64_t code = agent_move(
		agent->self.uffd, area->ram + offset, area->scratch + offset, pages * PAGE, &moved);

	if (moved > 0)
		return moved / PAGE;
	/* The copy that it ends with is refused only while the process changes its mappings. */
	(void)code;
	return put_back_one(agent, area->ram + offset, area->scratch + offset) ? 1 : 0;
}

/* Children get what they lack before anything leaves the scratch area. */
static void feed_all(struct agent *agent)
{
	while (agent->children != NULL)
		agent_serve(agent);
}

/* Puts an area back. It may be split meanwhile, and the list of areas may move. */
static void put_back(struct agent *agent, uint32_t index)
{
	uint64_t page = agent->self.areas[index].first_page;

	for (;;) {
		const struct trace_area *area;
		uint64_t pages, settled;

		feed_all(agent);
		area = &agent->self.areas[index];
		if (!next_clear(agent->self.gone, &page,
			    area->first_page + area->armed_bytes / PAGE, &pages))
			break;
		pages = piece(area->ram + (page - area->first_page) * PAGE, pages * PAGE) / PAGE;
		settled = move_back(agent, area, page, pages);
		for (; settled > 0; settled--)
			set_bit(agent->self.gone, page++);
		agent_serve(agent);
	}
}

/* Areas that are split meanwhile go to the list's end: they are met there. */
static void disarm_private(struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		if (agent->self.areas[i].kind == TRACE_KIND_PRIVATE &&
			agent->self.areas[i].scratch != 0)
			put_back(agent, i);
	}
	feed_all(agent);
}

/*
 * Only what we have registered: a kernel without commit 23ec90eb122f does not look whose it is, and
 * would end the userfaultfd because of which we were refused. Its pages that are still to come
 * would be zeros.
 */
static void unregister_all(struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		const struct trace_area *area = &agent->self.areas[i];
		struct uffdio_range order = {.start = area->ram, .len = area->bytes};

		if (area->registered != 0)
			(void)control(agent->record->uffd[area->kind], UFFDIO_UNREGISTER, &order);
	}
}

void agent_disarm(struct agent *agent)
{
	struct trace_record *record = agent->record;

	set_state(record, TRACE_STATE_DISARMING);
	record->disarm_begin_ns = now_ns();
	agent->looked_ns = record->disarm_begin_ns;
	agent->gap_ns = &record->disarm_gap_ns;
	agent_unregister_scratch(agent);
	disarm_private(agent);
	/* Twice: memory may move (mremap) between the last look and the first time. */
	for (unsigned int i = 0; i < 2; i++) {
		unregister_all(agent);
		agent_serve(agent);
		feed_all(agent);
	}
	/* Before memory is unmapped: if that were still registered, we would wait for ourselves. */
	close_fd(&record->uffd[TRACE_KIND_PRIVATE]);
	close_fd(&record->uffd[TRACE_KIND_SHARED]);
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		const struct trace_area *area = &agent->self.areas[i];

		if (area->scratch != 0)
			(void)call3(SYS_munmap, area->scratch, area->bytes, 0);
	}
	unmap_grown(&agent->self);
	record->disarm_end_ns = now_ns();
}
