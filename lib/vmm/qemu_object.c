/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_object.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

const char *qemu_object_word(const char *text, char word[QEMU_OBJECT_WORD])
{
	size_t used = 0;

	for (; *text != '\0'; text++) {
		if (*text == ',' && *++text != ',')
			break;
		if (used < QEMU_OBJECT_WORD - 1)
			word[used++] = *text;
	}
	word[used] = '\0';
	return text;
}

static void read_list(const char *text, qemu_object_property_fn *property, void *user)
{
	char word[QEMU_OBJECT_WORD];

	for (bool first = true; *text != '\0'; first = false) {
		char *value;

		text = qemu_object_word(text, word);
		value = strchr(word, '=');
		if (value != NULL) {
			*value++ = '\0';
			property(user, word, value);
		} else if (first) {
			property(user, "qom-type", word);
		} else {
			property(user, word, "on");
		}
	}
}

static void read_json(const char *text, qemu_object_property_fn *property, void *user)
{
	json_t *root = json_loads(text, 0, NULL), *value;
	const char *name;

	json_object_foreach(root, name, value)
	{
		if (json_is_string(value))
			property(user, name, json_string_value(value));
		else
			property(user, name, json_is_true(value) ? "on" : "off");
	}
	json_decref(root);
}

void qemu_object_read(const char *text, qemu_object_property_fn *property, void *user)
{
	if (text[0] == '{')
		read_json(text, property, user);
	else
		read_list(text, property, user);
}

char *qemu_object_escape(const char *value)
{
	char *escaped = malloc(2 * strlen(value) + 1), *to = escaped;

	for (; escaped != NULL && *value != '\0'; value++) {
		*to++ = *value;
		if (*value == ',')
			*to++ = ',';
	}
	if (escaped != NULL)
		*to = '\0';
	return escaped;
}
