#include "containers/slots.h"

#include <stdlib.h>

static size_t segments_for(size_t count)
{
	return count / SLOTS_PER_SEGMENT + (count % SLOTS_PER_SEGMENT != 0);
}

static int reserve_directory(struct slots *slots)
{
	size_t capacity = slots->segment_capacity ? slots->segment_capacity * 2 : 4;
	void ***segments;

	if (slots->segment_count < slots->segment_capacity) {
		return 0;
	}
	segments = realloc(slots->segments, capacity * sizeof *segments);
	if (segments == NULL) {
		return -1;
	}
	slots->segments = segments;
	slots->segment_capacity = capacity;
	return 0;
}

int slots_reserve(struct slots *slots, size_t count)
{
	size_t before = slots->segment_count;

	while (slots->segment_count < segments_for(count)) {
		void **segment = NULL;

		if (reserve_directory(slots) == 0) {
			segment = calloc(SLOTS_PER_SEGMENT, sizeof *segment);
		}
		if (segment == NULL) {
			slots_trim(slots, before * SLOTS_PER_SEGMENT);
			return -1;
		}
		slots->segments[slots->segment_count++] = segment;
	}
	return 0;
}

void slots_trim(struct slots *slots, size_t count)
{
	while (slots->segment_count > segments_for(count)) {
		free(slots->segments[--slots->segment_count]);
	}
}

void slots_free(struct slots *slots)
{
	slots_trim(slots, 0);
	free(slots->segments);
	*slots = (struct slots){0};
}
