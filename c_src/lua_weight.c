#include "lua_weight.h"

#include <lauxlib.h>

/* On a machine with pointers of 8 bytes; with smaller ones, a stanza takes less than this. */
enum {
	TABLE_BYTES = 56,
	ITEM_BYTES = 16, /* in a table's list */
	FIELD_BYTES = 24,
	STRING_BYTES = 33, /* besides its letters; of these, 8 in the table of all short strings */
	/* an element's own table, with the fields name, attr and tags, and the tables of the latter two */
	ELEMENT_BYTES = 3 * TABLE_BYTES + 4 * FIELD_BYTES,
};

/* Lua keeps room for a power of two. */
static size_t room_for(size_t count)
{
	size_t room = 1;

	if (count == 0) {
		return 0;
	}
	while (room < count) {
		room *= 2;
	}
	return room;
}

static size_t weigh_string(lua_State *L, int index)
{
	return lua_type(L, index) == LUA_TSTRING ? STRING_BYTES + lua_rawlen(L, index) : 0;
}

/*
 * The parser lists the names of attributes in the same table, and the room for that list stays. So
 * does the room for one name more: that of "xml:lang" is another one for a moment.
 */
static size_t weigh_attributes(lua_State *L, int index, size_t max)
{
	size_t bytes = 0, count = 0;

	lua_pushnil(L);
	while (lua_next(L, index) != 0) {
		bytes += FIELD_BYTES + weigh_string(L, -1) + weigh_string(L, -2);
		count++;
		if (bytes > max) {
			lua_pop(L, 2);
			return bytes;
		}
		lua_pop(L, 1);
	}
	if (count == 0) {
		return 0;
	}
	return bytes + (room_for(count + 1) - count) * FIELD_BYTES + room_for(count) * ITEM_BYTES;
}

/* Each level takes ELEMENT_BYTES of `max`, so that it goes no deeper than max / ELEMENT_BYTES. */
/* NOLINTBEGIN(misc-no-recursion) */

static size_t weigh_element(lua_State *L, int index, size_t max);

static size_t weigh_child(lua_State *L, int index, size_t max)
{
	return lua_istable(L, index) ? weigh_element(L, index, max) : weigh_string(L, index);
}

/* The children are listed twice, elements among `tags`. */
static size_t weigh_children(lua_State *L, int index, size_t max)
{
	size_t count = (size_t)lua_rawlen(L, index), bytes, i;

	if (count > max / ITEM_BYTES) {
		return max + 1;
	}
	bytes = 2 * room_for(count) * ITEM_BYTES;
	for (i = 1; i <= count && bytes <= max; i++) {
		lua_rawgeti(L, index, (lua_Integer)i);
		bytes += weigh_child(L, lua_gettop(L), max - bytes);
		lua_pop(L, 1);
	}
	return bytes;
}

static size_t weigh_field(lua_State *L, int index, const char *name, size_t max)
{
	size_t bytes;

	lua_pushstring(L, name);
	lua_rawget(L, index);
	bytes = lua_istable(L, -1) ? weigh_attributes(L, lua_gettop(L), max) : weigh_string(L, -1);
	lua_pop(L, 1);
	return bytes;
}

static size_t weigh_element(lua_State *L, int index, size_t max)
{
	size_t bytes = ELEMENT_BYTES;

	if (bytes > max) {
		return bytes;
	}
	luaL_checkstack(L, LUA_MINSTACK, NULL);
	bytes += weigh_field(L, index, "name", max - bytes);
	if (bytes <= max) {
		bytes += weigh_field(L, index, "attr", max - bytes);
	}
	return bytes > max ? bytes : bytes + weigh_children(L, index, max - bytes);
}

/* NOLINTEND(misc-no-recursion) */

size_t lua_weight(lua_State *L, int index, size_t max)
{
	return weigh_element(L, lua_absindex(L, index), max);
}
