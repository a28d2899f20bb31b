#include "lua/lua_weight.h"

#include <lauxlib.h>

/* On a machine with pointers of 8 bytes; with smaller ones, a stanza takes less than this. */
enum {
	TABLE_BYTES = 56,
	ITEM_BYTES = 16, /* in a table's list */
	FIELD_BYTES = 24,
	STRING_BYTES = 33, /* besides its letters, and with the 8 bytes of its place in Lua's table of strings */
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
 * At first, the parser also lists the names of attributes in this table, and the room for that list
 * stays. So does room for one more, as "xml:lang" is there under another name first.
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

static size_t weigh_field(lua_State *L, int index, const char *name, size_t max)
{
	size_t bytes;

	lua_pushstring(L, name);
	lua_rawget(L, index);
	bytes = lua_istable(L, -1) ? weigh_attributes(L, lua_gettop(L), max) : weigh_string(L, -1);
	lua_pop(L, 1);
	return bytes;
}

/*
 * What an element's children take. Those that are elements are pushed, and weighed later but for
 * ELEMENT_BYTES. There are two lists, of all children and of the elements, each with room for all.
 */
static size_t weigh_children(lua_State *L, int index, size_t max)
{
	size_t count = (size_t)lua_rawlen(L, index), bytes, i;

	if (count > max / ITEM_BYTES) {
		return max + 1;
	}
	bytes = 2 * room_for(count) * ITEM_BYTES;
	for (i = 1; i <= count && bytes <= max; i++) {
		luaL_checkstack(L, LUA_MINSTACK, NULL);
		lua_rawgeti(L, index, (lua_Integer)i);
		if (lua_istable(L, -1)) {
			bytes += ELEMENT_BYTES;
		} else {
			bytes += weigh_string(L, -1);
			lua_pop(L, 1);
		}
	}
	return bytes;
}

/*
 * What the element at the top of the stack takes besides ELEMENT_BYTES. The elements among its
 * children are left in its place.
 */
static size_t weigh_element(lua_State *L, size_t max)
{
	int index = lua_gettop(L);
	size_t bytes = weigh_field(L, index, "name", max);

	if (bytes <= max) {
		bytes += weigh_field(L, index, "attr", max - bytes);
	}
	if (bytes <= max) {
		bytes += weigh_children(L, index, max - bytes);
	}
	lua_remove(L, index);
	return bytes;
}

size_t lua_weight(lua_State *L, int index, size_t max)
{
	int before = lua_gettop(L);
	size_t bytes = ELEMENT_BYTES;

	lua_pushvalue(L, index);
	while (bytes <= max && lua_gettop(L) > before) {
		bytes += weigh_element(L, max - bytes);
	}
	lua_settop(L, before);
	return bytes;
}
