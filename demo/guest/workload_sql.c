// SPDX-License-Identifier: MIT
/*
 * Queries on an in-memory SQLite database: all look up a row by its key, some update it, some count
 * by an index, some sum over neighbours. Keys follow Zipf's law. Every row's text depends on its
 * key and generation, and is compared.
 */
#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <string.h>

#include "content.h"
#include "link.h"
#include "workload.h"
#include "zipf.h"

#define ROW_BYTES 1024
#define ROW_COST 1240   /* what a row takes with its index entry and its pages' slack */
#define STAMPED_SHARE 8 /* one part in so many of the memory is stamped pages */
#define CONTENT_ID_BASE (1ULL << 41)
#define GROUP_ROWS 50 /* rows with one value in the indexed column */
#define SKEW 2.0      /* Zipf exponent of the keys */
#define RANGE_ROWS 16 /* neighbours that are summed */
#define UPDATE_PERCENT 10
#define COUNT_PERCENT 10
#define RANGE_PERCENT 10
#define REPORT_ROWS 16384
#define FILL_ROWS 1000 /* in one transaction */

enum statement { INSERT, LOOKUP, COUNT, RANGE, UPDATE, ALL, STATEMENTS };

static const char *const sql_text[STATEMENTS] = {
	[INSERT] = "INSERT INTO item VALUES (?1, ?2, 1, ?3)",
	[LOOKUP] = "SELECT id, generation, body FROM item WHERE id = ?1",
	[COUNT] = "SELECT count(*) FROM item WHERE kind = ?1",
	[RANGE] = "SELECT sum(generation) FROM item WHERE id >= ?1 AND id < ?2",
	[UPDATE] = "UPDATE item SET generation = ?2, body = ?3 WHERE id = ?1",
	[ALL] = "SELECT id, generation, body FROM item WHERE id >= ?1 AND id < ?1 + 500",
};

/* One connection for all threads, under one lock: an in-memory database belongs to one. */
static struct {
	pthread_mutex_t lock;
	sqlite3 *db;
	sqlite3_stmt *statement[STATEMENTS];
	int64_t rows;
	struct zipf zipf;
} sql = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t group_of(int64_t row)
{
	return (int64_t)(content_mix((uint64_t)row) % (uint64_t)(sql.rows / GROUP_ROWS + 1));
}

static int run_text(const char *text)
{
	return sqlite3_exec(sql.db, text, NULL, NULL, NULL) == SQLITE_OK ? 0 : -EIO;
}

/* Steps a statement to its end and resets it. */
static int finish(sqlite3_stmt *statement)
{
	int rc = sqlite3_step(statement);

	sqlite3_reset(statement);
	return rc == SQLITE_DONE ? 0 : -EIO;
}

static int insert_row(int64_t row)
{
	_Alignas(8) unsigned char body[ROW_BYTES];
	sqlite3_stmt *statement = sql.statement[INSERT];

	content_fill(body, sizeof(body), CONTENT_ID_BASE + (uint64_t)row, 1);
	sqlite3_bind_int64(statement, 1, row);
	sqlite3_bind_int64(statement, 2, group_of(row));
	sqlite3_bind_blob(statement, 3, body, sizeof(body), SQLITE_STATIC);
	return finish(statement);
}

static int fill(void)
{
	int err = run_text("BEGIN");

	for (int64_t row = 0; row < sql.rows && !err; row++) {
		err = insert_row(row);
		if (!err && row % FILL_ROWS == FILL_ROWS - 1)
			err = run_text("COMMIT; BEGIN");
		if (row % REPORT_ROWS == 0)
			link_send("progress sqlite %lld %lld", (long long)row, (long long)sql.rows);
	}
	return err ? err : run_text("COMMIT; CREATE INDEX item_kind ON item (kind)");
}

static int sql_start(size_t mb, unsigned int cpus)
{
	int err;

	(void)cpus;
	sql.rows = (int64_t)((mb - mb / STAMPED_SHARE) * 1048576 / ROW_COST);
	err = zipf_init(&sql.zipf, (uint64_t)sql.rows, SKEW);
	if (!err)
		err = stamp_region_new(NULL, mb / STAMPED_SHARE, "anonymous");
	if (err)
		return err;
	if (sqlite3_open_v2(":memory:", &sql.db,
		    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
		    NULL) != SQLITE_OK)
		return -EIO;
	err = run_text("PRAGMA journal_mode = OFF; CREATE TABLE item"
		       " (id INTEGER PRIMARY KEY, kind INTEGER, generation INTEGER, body BLOB)");
	for (int i = 0; i < STATEMENTS && !err; i++) {
		if (sqlite3_prepare_v2(sql.db, sql_text[i], -1, &sql.statement[i], NULL) !=
			SQLITE_OK)
			err = -EIO;
	}
	return err ? err : fill();
}

/* Whether the row that @statement stands on is what it should be. */
static int row_right(sqlite3_stmt *statement, uint32_t *generation)
{
	_Alignas(8) unsigned char body[ROW_BYTES];
	uint64_t id = (uint64_t)sqlite3_column_int64(statement, 0);

	*generation = (uint32_t)sqlite3_column_int64(statement, 1);
	if (sqlite3_column_bytes(statement, 2) != ROW_BYTES)
		return 0;
	memcpy(body, sqlite3_column_blob(statement, 2), ROW_BYTES);
	return content_check(body, sizeof(body), CONTENT_ID_BASE + id, *generation);
}

static uint32_t lookup(int64_t row)
{
	sqlite3_stmt *statement = sql.statement[LOOKUP];
	uint32_t generation = 0;

	sqlite3_bind_int64(statement, 1, row);
	if (sqlite3_step(statement) != SQLITE_ROW || !row_right(statement, &generation))
		errors_add();
	sqlite3_reset(statement);
	return generation;
}

static void update(int64_t row, uint32_t generation)
{
	_Alignas(8) unsigned char body[ROW_BYTES];
	sqlite3_stmt *statement = sql.statement[UPDATE];

	content_fill(body, sizeof(body), CONTENT_ID_BASE + (uint64_t)row, generation);
	sqlite3_bind_int64(statement, 1, row);
	sqlite3_bind_int64(statement, 2, generation);
	sqlite3_bind_blob(statement, 3, body, sizeof(body), SQLITE_STATIC);
	if (finish(statement))
		errors_add();
}

/* Runs a statement that has one row as its answer, with two numbers. */
static void ask(enum statement which, int64_t first, int64_t second)
{
	sqlite3_stmt *statement = sql.statement[which];

	sqlite3_bind_int64(statement, 1, first);
	if (second)
		sqlite3_bind_int64(statement, 2, second);
	if (sqlite3_step(statement) != SQLITE_ROW)
		errors_add();
	sqlite3_reset(statement);
}

static void sql_request(unsigned int cpu, uint64_t state)
{
	int64_t row = (int64_t)zipf_choose(&sql.zipf, &state);
	uint64_t dice = content_next(&state) % 100;
	uint32_t generation;

	(void)cpu;
	pthread_mutex_lock(&sql.lock);
	generation = lookup(row);
	if (dice < UPDATE_PERCENT)
		update(row, generation + 1);
	else if (dice < UPDATE_PERCENT + COUNT_PERCENT)
		ask(COUNT, group_of(row), 0);
	else if (dice < UPDATE_PERCENT + COUNT_PERCENT + RANGE_PERCENT)
		ask(RANGE, row, row + RANGE_ROWS);
	pthread_mutex_unlock(&sql.lock);
}

static struct stamp_result sql_verify(void)
{
	struct stamp_result result = {0};
	sqlite3_stmt *statement = sql.statement[ALL];
	uint64_t rows = 0;
	uint32_t generation;

	for (int64_t row = 0; row < sql.rows; row += 500) {
		pthread_mutex_lock(&sql.lock);
		sqlite3_bind_int64(statement, 1, row);
		while (sqlite3_step(statement) == SQLITE_ROW) {
			rows++;
			if (!row_right(statement, &generation))
				result.errors++;
		}
		sqlite3_reset(statement);
		pthread_mutex_unlock(&sql.lock);
	}
	if (rows != (uint64_t)sql.rows)
		result.errors++;
	result.pages = rows * ROW_BYTES / STAMP_PAGE;
	return result;
}

const struct workload workload_sql = {
	.name = "sql",
	.start = sql_start,
	.request = sql_request,
	.verify = sql_verify,
};
