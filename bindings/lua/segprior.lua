--- libsegprior for LuaJIT. The C headers are read when this module is loaded: there is no second copy of any
-- struct, constant or prototype, and every function of the library is there as `segprior.C.segprior_...`.
--
--   SEGPRIOR_LIBRARY  the shared library; else libsegprior.so where the system finds it
--   SEGPRIOR_INCLUDE  the folder that holds segprior/segprior.h; else include/ of the source tree
local ffi = require "ffi"

local here = debug.getinfo(1, "S").source:match "^@(.*/)" or "./"
local include = os.getenv "SEGPRIOR_INCLUDE" or here .. "../../include"

-- What a C compiler would not see here: the branches for C++ and Windows.
local function is_foreign(condition)
  return condition:find("__cplusplus", 1, true) or condition:find("_WIN32", 1, true)
end

-- The declarations of a header and of those that it includes, each header once. A branch's #else belongs to the
-- compiler in hand; other preprocessor lines are guards and macros, which the ffi does not need.
local function declarations(name, seen)
  if seen[name] then return "" end
  seen[name] = true
  local file = assert(io.open(include .. "/" .. name))
  local text = file:read "*a":gsub("/%*.-%*/", " ")
  file:close()
  local kept, skipping, depth = {}, nil, 0
  for line in text:gmatch "[^\n]+" do
    local directive, rest = line:match "^%s*#%s*(%a+)%s*(.*)"
    if directive and directive:sub(1, 2) == "if" then
      depth = depth + 1
      if not skipping and is_foreign(rest) then skipping = depth end
    elseif directive == "endif" or directive == "else" then
      if skipping == depth then skipping = nil end
      if directive == "endif" then depth = depth - 1 end
    elseif not skipping then
      local included = directive == "include" and rest:match '"(segprior/.*)"'
      kept[#kept + 1] = included and declarations(included, seen) or directive and "" or line
    end
  end
  return table.concat(kept, "\n"):gsub("SEGPRIOR_API", "")
end

ffi.cdef((declarations("segprior/segprior.h", {})))
local C = ffi.load(os.getenv "SEGPRIOR_LIBRARY" or "segprior")

local segprior = { C = C }

local DTYPES = {
  float = C.SEGPRIOR_FLOAT32,
  double = C.SEGPRIOR_FLOAT64,
  uint8_t = C.SEGPRIOR_UINT8,
  int32_t = C.SEGPRIOR_INT32,
  int64_t = C.SEGPRIOR_INT64,
}

-- The C structs hold pointers that the garbage collector does not follow: what each of them points to.
local anchors = setmetatable({}, { __mode = "k" })

--- Raises the library's text (argument, value, rule) unless a call has succeeded.
function segprior.check(status)
  if status ~= C.SEGPRIOR_OK then error(ffi.string(C.segprior_last_error()), 2) end
end

--- A context of the CPU, destroyed when it is collected.
function segprior.context()
  local out = ffi.new "segprior_context *[1]"
  segprior.check(C.segprior_context_create(ffi.new("segprior_device", C.SEGPRIOR_CPU, 0), out))
  return ffi.gc(out[0], C.segprior_context_destroy)
end

--- Zeroed memory with its shape. `element`: "float", "double", "uint8_t", "int32_t" or "int64_t".
-- Fields: data, a C array whose first index is 0; size, its number of elements.
function segprior.tensor(element, shape)
  local dtype = assert(DTYPES[element], "no dtype for elements of type " .. tostring(element))
  local size = 1
  for _, extent in ipairs(shape) do size = size * extent end
  local tensor = { size = size, data = ffi.new(element .. "[?]", size), c = ffi.new "segprior_tensor" }
  tensor.shape = ffi.new("int64_t[?]", #shape, shape)
  tensor.c.data, tensor.c.dtype = tensor.data, dtype
  tensor.c.device.type = C.SEGPRIOR_CPU
  tensor.c.ndim, tensor.c.shape = #shape, tensor.shape
  return tensor
end

local function assign(target, key, value)
  if type(value) == "table" and value.c then
    target[key] = value.c
  elseif type(value) == "table" then -- an array of the struct, such as `edges`
    for k, entry in ipairs(value) do assign(target[key], k - 1, entry) end
  else
    target[key] = value
  end
end

--- A struct of the library with struct_size and the given fields set; the others are absent. Tensors go in as
-- they are, and live as long as the struct.
function segprior.struct(name, fields)
  local struct = ffi.new(name)
  struct.struct_size = ffi.sizeof(name)
  for key, value in pairs(fields) do assign(struct, key, value) end
  anchors[struct] = fields
  return struct
end

--- Options: the library's defaults, then the given fields.
function segprior.options(name, fields)
  local options = ffi.new(name)
  segprior.check(C[name .. "_init"](options, ffi.sizeof(name)))
  for key, value in pairs(fields) do assign(options, key, value) end
  anchors[options] = fields
  return options
end

--- Workspace or saved state of at least `bytes`, aligned as the library asks. Fields: data, bytes.
function segprior.buffer(bytes)
  local alignment = 256
  local memory = ffi.new("uint8_t[?]", tonumber(bytes) + alignment)
  local offset = -tonumber(ffi.cast("uintptr_t", memory) % alignment) % alignment
  return { memory = memory, data = memory + offset, bytes = bytes }
end

return segprior
