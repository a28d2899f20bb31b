-- Configurations for a throwaway ejabberd: Debian's, as it is shipped, and what somebody writes into one. They are taken as
-- text: sections with a name at the beginning of the line, most of which have entries with names of their own, two blanks
-- further to the right.

local throwaway = require "spec.support.throwaway";

local configuration = {};

-- What differs from the shipped one: loopback only, ports of its own, and no certificate, so that nothing is encrypted. In
-- the listeners, what is said of limits is as shipped.
local OF_THROWAWAY = [[
hosts: ["$HOST"]
certfiles: []
acme: { auto: false }
s2s_use_starttls: false
listen:
  - { module: ejabberd_c2s, ip: "127.0.0.1", port: $C2S_PORT, max_stanza_size: 262144, shaper: c2s_shaper, access: c2s }
  - { module: ejabberd_s2s_in, ip: "127.0.0.1", port: $S2S_PORT, max_stanza_size: 524288 }
]];

-- (lines, pattern) -> list of { name (nil for what comes before the first one), lines }
local function split(lines, pattern)
	local parts = { { lines = {} } };
	for _, line in ipairs(lines) do
		local name = line:match(pattern);
		if name then
			table.insert(parts, { name = name, lines = {} });
		end
		table.insert(parts[#parts].lines, line);
	end
	return parts;
end

local function sections_of(lines)
	return split(lines, "^([%w_]+):");
end

local function entries_of(lines)
	return split(lines, "^  ([%w_]+):");
end

local function find(parts, name)
	for _, part in ipairs(parts) do
		if part.name == name then
			return part;
		end
	end
end

local function join(parts)
	local lines = {};
	for _, part in ipairs(parts) do
		table.move(part.lines, 1, #part.lines, #lines + 1, lines);
	end
	return lines;
end

-- Puts each of the parts that have a name in the place of the one of that name, or at the end.
-- merge: (old lines, new lines) -> lines
local function put(parts, new_parts, merge)
	for _, new in ipairs(new_parts) do
		local old = new.name and find(parts, new.name);
		if old then
			old.lines = merge(old.lines, new.lines);
		elseif new.name then
			table.insert(parts, new);
		end
	end
	return join(parts);
end

local function replace(_, new)
	return new;
end

local function merge_sections(old, new)
	local entries, new_entries = entries_of(old), entries_of(new);
	return entries[2] and new_entries[2] and put(entries, new_entries, replace) or new;
end

local function lines_of(text)
	local lines = {};
	for line in text:gmatch("([^\n]*)\n") do
		if line:find("%S") and not line:find("^%s*#") then
			table.insert(lines, line);
		end
	end
	return lines;
end

-- (text, block) -> the text with the block written into it: its sections, and their entries, in the place of those that have
-- the same name, and the others beside them
function configuration.with(text, block)
	return table.concat(put(sections_of(lines_of(text)), sections_of(lines_of(block)), merge_sections), "\n").."\n";
end

-- (block) -> list of the names of its entries, and of its sections that have none
function configuration.names(block)
	local names = {};
	for _, section in ipairs(sections_of(lines_of(block))) do
		local entries = entries_of(section.lines);
		for _, entry in ipairs(entries) do
			table.insert(names, entry.name);
		end
		table.insert(names, not entries[2] and section.name or nil);
	end
	return names;
end

-- (block, name) -> the block without the entry or section of that name
function configuration.without(block, name)
	local kept = {};
	for _, section in ipairs(sections_of(lines_of(block))) do
		local entries = entries_of(section.lines);
		local count = #entries;
		for index = count, 1, -1 do
			if entries[index].name == name then
				table.remove(entries, index);
			end
		end
		local is_empty = #entries < count and #entries == 1; -- nothing but the section's name is left
		if section.name ~= name and not is_empty then
			local lines = join(entries);
			table.move(lines, 1, #lines, #kept + 1, kept);
		end
	end
	return table.concat(kept, "\n").."\n";
end

-- -> Debian's, as a throwaway ejabberd can be started with it
function configuration.of_debian()
	local shipped = throwaway.read_file(throwaway.unpacked "ejabberd".."/usr/share/ejabberd/ejabberd.yml.example");
	return configuration.with(shipped, OF_THROWAWAY);
end

return configuration;
