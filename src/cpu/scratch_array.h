// An array in scratch memory, without initial values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ops/kernel_table.h"

namespace ort_roialign::cpu {

template <typename Element>
class ScratchArray {
  static_assert(std::is_trivially_destructible_v<Element>, "nothing runs when the array ends");

 public:
  ScratchArray(ScratchMemory& memory, int64_t size) : memory_(memory), size_(size) {
    if (size == 0) return;
    block_ = memory.allocate(static_cast<size_t>(size) * sizeof(Element) + kAlignment);
    const uintptr_t address = reinterpret_cast<uintptr_t>(block_);
    elements_ = reinterpret_cast<Element*>((address + kAlignment - 1) / kAlignment * kAlignment);
  }
  ~ScratchArray() {
    if (block_ != nullptr) memory_.release(block_);
  }
  ScratchArray(const ScratchArray&) = delete;
  ScratchArray& operator=(const ScratchArray&) = delete;

  Element* data() { return elements_; }
  int64_t size() const { return size_; }
  Element* begin() { return elements_; }
  Element* end() { return elements_ + size_; }
  Element& operator[](int64_t index) { return elements_[index]; }
  const Element& operator[](int64_t index) const { return elements_[index]; }

 private:
  static constexpr uintptr_t kAlignment = 64;  // a cache line

  ScratchMemory& memory_;
  int64_t size_;
  void* block_ = nullptr;
  Element* elements_ = nullptr;
};

}  // namespace ort_roialign::cpu
